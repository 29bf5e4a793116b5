"""What began it, when workers that train together fail: one that dies makes the others fail too."""

import pytest
import torch.distributed as dist

from cluster.retry import Preempted
from cluster.worker_group import _root_fault
from ssl_core.errors import OutOfMemory, StorageError, UserError

GLOO = RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:538] Connection closed by peer [10.0.0.2]:1")


def died() -> Exception:
    from ray.exceptions import ActorDiedError

    return ActorDiedError()


def unhealthy() -> Exception:
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

    return WorkerHealthCheckFailedError("failed", died())


@pytest.mark.parametrize(
    ("failures", "kind", "cause"),
    [
        ({1: died, 0: GLOO}, "system", "ActorDiedError"),
        ({1: unhealthy}, "system", "ActorDiedError"),
        ({0: GLOO}, "system", "Connection closed by peer"),  # whose machine Ray has not yet found dead
        ({0: dist.DistBackendError("NCCL error: remote process exited")}, "system", "NCCL error"),
        ({1: ValueError("wrong"), 0: GLOO}, "program", "ValueError: wrong"),
        ({1: died, 0: ValueError("who has no answer")}, "system", "ActorDiedError"),
        ({0: ValueError("wrong"), 1: ValueError("wrong")}, "program", "ValueError: wrong"),
        ({0: UserError("no such folder"), 1: UserError("no such folder")}, "final", "no such folder"),
        ({1: OutOfMemory("out of GPU memory"), 0: GLOO}, "program", "OutOfMemory: out of GPU memory"),
        ({0: Preempted("told to leave; saved at step 7"), 1: GLOO}, "preempted", "told to leave; saved at step 7"),
        ({0: StorageError("s3 is away")}, "system", "s3 is away"),
    ],
)
def test_what_began_it(failures, kind, cause):
    from ray.train import WorkerGroupError

    failures = {rank: failure if isinstance(failure, Exception) else failure() for rank, failure in failures.items()}
    fault = _root_fault(WorkerGroupError("they failed", failures), 12)
    assert fault.kind == kind and cause in fault.cause and "\n" not in fault.cause
    assert fault.step == 12 and "they failed" in fault.text


def test_a_group_that_could_not_be_started():
    """It is the system's fault, unless it only found no room, which others may fill for hours."""
    from ray.train import ControllerError
    from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError, WorkerGroupStartupTimeoutError

    failed = _root_fault(ControllerError(WorkerGroupStartupFailedError("a machine died\nmeanwhile")), None)
    assert failed.kind == "system" and "\n" not in failed.cause
    assert _root_fault(ControllerError(WorkerGroupStartupTimeoutError(2)), None).kind == "preempted"
