"""What is used of Ray that Ray does not promise to keep does what it is used for, on a real cluster."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command import ROOT

from cluster import private_ray
from cluster.resources import per_node
from cluster.session import session

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The head of a cluster of two CPUs, which this process has joined."""
    import ray

    with session(cpus=2):
        yield ray.get_runtime_context().gcs_address


def test_only_one_file_uses_it():
    private = re.compile(r"ray\._private|ray\.core|ray\.\S*_internal|ray\.train\.v2")
    files = [path for path in (ROOT / "cluster").glob("*.py") if private.search(path.read_text())]
    assert [path.name for path in files] == ["private_ray.py"]


def hold_cpu():
    """An actor that has one of the cluster's CPUs."""
    import ray

    @ray.remote(num_cpus=1)
    class Holder:
        def ready(self) -> bool:
            return True

    holder = Holder.remote()
    assert ray.get(holder.ready.remote())
    return holder


def test_free_resources(address):
    import ray

    (node,) = (one["NodeID"] for one in ray.nodes())
    assert private_ray.free_resources()[node]["CPU"] == 2
    holder = hold_cpu()
    wait_until(lambda: private_ray.free_resources()[node]["CPU"] == 1)
    assert per_node("CPU", free=True) == [1] and per_node("CPU") == [2]
    ray.kill(holder)
    wait_until(lambda: private_ray.free_resources()[node]["CPU"] == 2)


def test_resolve_address(address):
    assert private_ray.resolve_address(address) == address
    assert re.fullmatch(r"[\d.]+:\d+", private_ray.resolve_address("auto") or ""), "this cluster's or another's here"


def test_call_head(address):
    import grpc

    assert private_ray.call_head(address, 10) is None
    with pytest.raises(grpc.RpcError):
        private_ray.call_head("127.0.0.1:1", 1)


def test_silence_raylet(address, capfd):
    """Messages come to the place that it takes, and no further."""
    from ray._private import utils, worker

    published = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "print_to_stdstream", lambda data, **_: published.append(data["lines"]))
        utils.publish_error_to_driver("died", "a worker died", worker.global_worker.gcs_client)
        wait_until(lambda: published)
        private_ray.silence_raylet()
        utils.publish_error_to_driver("died", "another died", worker.global_worker.gcs_client)
        time.sleep(1)
    assert capfd.readouterr() == ("", "") and len(published) == 1


def test_train_errors():
    from ray.train import ControllerError
    from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError, WorkerHealthCheckFailedError

    assert private_ray.is_train_error(WorkerHealthCheckFailedError("failed", OSError()))
    assert not private_ray.is_train_error(OSError())
    late = WorkerGroupStartupTimeoutError(2)
    assert private_ray.is_start_timeout(ControllerError(late).controller_failure)
    assert not private_ray.is_start_timeout(ControllerError(OSError()).controller_failure)


def test_draining_nodes(address):
    """Last, for no task starts on a machine that is about to go."""
    import ray

    assert private_ray.draining_nodes() == set()
    holder = hold_cpu()  # an idle machine would go at once
    (node,) = (one["NodeID"] for one in ray.nodes())
    why = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "taken away"]
    command = [Path(sys.executable).with_name("ray"), "drain-node", "--address", address, "--node-id", node, *why]
    subprocess.run([*command, "--deadline-remaining-seconds", "600"], check=True, capture_output=True)
    wait_until(lambda: private_ray.draining_nodes() == {node})
    assert per_node("CPU") == []
    ray.kill(holder)


def wait_until(true, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "too late"
        time.sleep(0.1)
