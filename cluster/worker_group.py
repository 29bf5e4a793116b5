"""One callable on many workers that train together: Ray Train places them, connects them, and resizes their group."""

import contextlib
import gc
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.elastic import GROW, SETTLE, Growth, size, start_within
from cluster.heartbeat import Pulse, beating, current
from cluster.resources import each_has
from cluster.retry import Failed, Fault, Kind, cause_of, kind_of
from cluster.session import quietly


def on_workers(
    call: Callable[[Any, str], Any],
    argument: Any,
    *,
    workers: tuple[int, int],
    gpu: bool,
    name: str,
    logs: Path,
    silence: float,
) -> Any:
    """`call(argument, device)` in each of several processes within one torch.distributed group (NCCL on GPUs, gloo
    on CPUs) -> what rank 0 returned. One attempt, as a job of cluster/scheduler.py.

    `workers`: fewest and most; if they differ, the group has as many as there is room for, is told to leave when there
    is room for more, and starts anew: `call` has to find its own checkpoint. `logs`: a folder that the machines share,
    for Ray Train's own files. A worker that waits for the others longer than `silence` seconds fails.

    Raises Failed if a worker failed, with the kind of the fault that began it.
    """
    quietly()
    least, most = workers
    kind, pulse = "GPU" if gpu else "CPU", current()
    count, wait = most if least == most else size(least, most, each_has(kind)), GROW
    for number in itertools.count():
        trainer = _trainer(call, argument, count, kind, f"{name}-{number}" if number else name, logs, silence, pulse)
        patience = start_within(SETTLE) if count > least else contextlib.nullcontext()
        with patience, Growth(most - count, kind, pulse, wait) as growth:
            try:
                return trainer.fit().return_value
            except Exception as error:
                fault, no_room = _fault(error, _step(pulse)), _no_room(error)
                smaller, larger = no_room and count > least, growth.found and fault.kind == "preempted"
                if pulse.leaving or not (smaller or larger):
                    raise Failed(fault) from error
        if smaller:  # others have what was counted on, and may take it again
            count, wait = size(least, count - 1, each_has(kind, free=True)), 2 * wait
        else:
            count += growth.found
        gc.collect()  # what failed lies in cycles, and holds Ray Train's controller with its memory


def _trainer(
    call: Callable, argument: Any, count: int, kind: str, name: str, logs: Path, silence: float, pulse: Pulse
) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    return TorchTrainer(
        _loop,
        train_loop_config={"call": call, "argument": argument, "told": (pulse.board, pulse.job, pulse.faults)},
        scaling_config=ScalingConfig(num_workers=count, use_gpu=kind == "GPU", resources_per_worker={kind: 1}),
        torch_config=TorchConfig(timeout_s=int(silence)),
        # what happens after a fault is decided elsewhere, for all jobs alike
        run_config=RunConfig(
            name=name,
            **_place(logs),
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0, max_preemption_failures=0),
        ),
    )


def _place(logs: Path) -> dict:
    """Where Ray Train keeps its own files: a path, or what universal_pathlib makes of a URL."""
    if isinstance(logs, Path):
        return {"storage_path": str(logs)}
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    return {"storage_path": logs.path, "storage_filesystem": PyFileSystem(FSSpecHandler(logs.fs))}


def _loop(config: dict) -> Any:
    import ray
    import ray.train
    import ray.train.torch

    board, job, faults = config["told"]
    worker = ray.train.get_context().get_world_rank() + 1  # 0 is who started them
    if worker == 1 and board is not None:
        board.regroup.remote(job, ray.util.get_current_placement_group())
    with beating(Pulse(job, board, faults, worker=worker)) as pulse:
        try:
            return config["call"](config["argument"], str(ray.train.torch.get_device()))
        finally:
            pulse.try_to_tell()  # its last step, which the decision on a fault needs


def _fault(error: Exception, step: int | None) -> Fault:
    """What began it: a worker that dies makes others fail that wait for it."""
    from ray.train import WorkerGroupError
    from ray.train.v2.api.exceptions import PreemptionError

    if isinstance(error, PreemptionError):
        return Fault("preempted", "a machine is taken away", step, str(error))
    if not isinstance(error, WorkerGroupError):  # they could not be started or connected
        # others may keep a cluster busy for hours, so that counts no more than a machine that is taken away
        return Fault("preempted" if _no_room(error) else "system", _short(error), step, str(error))
    found: dict[str, Exception] = {}
    for failure in error.worker_failures.values():
        failure = getattr(failure, "health_check_failure", failure)  # what Ray Train wraps says more
        found.setdefault(_what(failure), failure)
    for what in ("final", "preempted", "died", "program", "system", "connection"):
        if what in found:
            kind: Kind = "system" if what in ("died", "connection") else what
            cause = cause_of(found[what]) if kind == what else _short(found[what])
            return Fault(kind, cause, step, str(error))
    return Fault("system", _short(error), step, str(error))


def _no_room(error: Exception) -> bool:
    """Whether workers waited for room in vain."""
    return "WorkerGroupStartupTimeoutError" in type(getattr(error, "controller_failure", None)).__name__


def _what(failure: Exception) -> str:
    """The kind of a worker's failure; "died" if Ray tells that its process or machine is gone, "connection" if it lost
    the others, which is seldom what began it."""
    import torch.distributed as dist
    from ray.exceptions import RayError
    from ray.train.v2._internal.exceptions import RayTrainError

    if isinstance(failure, (RayError, RayTrainError)):
        return "died"
    gloo = type(failure) is RuntimeError and "gloo" in str(failure).lower()  # it has no class of its own
    return "connection" if gloo or isinstance(failure, dist.DistError) else kind_of(failure)


def _short(error: Exception) -> str:
    """Its first line that says something, for Ray's messages are long."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:300]


def _step(pulse: Pulse) -> int | None:
    """The furthest step that a worker of this job has told of."""
    if pulse.board is None:
        return None
    import ray

    signs = ray.get(pulse.board.heard.remote()).get(pulse.job, {}).values()
    return max((sign.step for sign, _ in signs if sign.step is not None), default=None)
