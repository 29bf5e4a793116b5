"""Runs one callable on many workers that train together: Ray Train places and connects them, and a group can be
resized."""

import contextlib
import gc
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.elastic import SCALE_UP_AFTER_S, START_TIMEOUT_S, ScaleUpMonitor, group_size, start_within
from cluster.heartbeat import Heartbeat, ask_last_beats, current, sending_heartbeats
from cluster.private_ray import is_start_timeout, is_train_error
from cluster.resources import per_node
from cluster.retry import Fault, FaultKind, JobFault, describe_error, fault_kind
from cluster.session import apply_settings


def run_worker_group(
    call: Callable[[Any, str], Any],
    argument: Any,
    *,
    workers: tuple[int, int],
    gpu: bool,
    name: str,
    logs: Path,
    timeout: float,
) -> Any:
    """Runs `call(argument, device)` in several processes of one torch.distributed group, as one attempt of a job.

    The group uses NCCL on GPUs and gloo on CPUs.

    Args:
        call: The function that each worker runs; it has to find its own checkpoint.
        argument: Its first argument.
        workers: Fewest and most workers. If they differ, the group has as many as there are resources for, is asked
            to stop when there are resources for more, and starts anew.
        gpu: Whether each worker has a GPU; else it has a CPU.
        name: The name of the run for Ray Train.
        logs: A folder that the machines share, for Ray Train's own files.
        timeout: Seconds after which a worker that waits for the others fails.

    Returns:
        What rank 0 returned.

    Raises:
        JobFault: If a worker failed, with the kind of the fault that began it.
    """
    apply_settings()
    min_workers, max_workers = workers
    kind, heartbeat = "GPU" if gpu else "CPU", current()
    wait = SCALE_UP_AFTER_S
    count = max_workers if min_workers == max_workers else group_size(min_workers, max_workers, per_node(kind))
    for number in itertools.count():
        run_name = f"{name}-{number}" if number else name
        trainer = _trainer(call, argument, count, kind, run_name, logs, timeout, heartbeat)
        start_limit = start_within(START_TIMEOUT_S) if count > min_workers else contextlib.nullcontext()
        with start_limit, ScaleUpMonitor(max_workers - count, kind, heartbeat, wait) as monitor:
            try:
                return trainer.fit().return_value
            except Exception as error:
                fault, out_of_room = _root_fault(error, _furthest_step(heartbeat)), _is_out_of_room(error)
                smaller, larger = out_of_room and count > min_workers, monitor.found and fault.kind == "preempted"
                if heartbeat.stop_requested or not (smaller or larger):
                    raise JobFault(fault) from error
        if smaller:  # others have what was counted on, and may take it again
            count, wait = group_size(min_workers, count - 1, per_node(kind, free=True)), 2 * wait
        else:
            count += monitor.found
        gc.collect()  # what failed lies in cycles, and holds Ray Train's controller with its memory


def _trainer(
    call: Callable, argument: Any, count: int, kind: str, name: str, logs: Path, timeout: float, heartbeat: Heartbeat
) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    return TorchTrainer(
        _train_loop_per_worker,
        train_loop_config={
            "call": call,
            "argument": argument,
            "identity": (heartbeat.registry, heartbeat.job, heartbeat.faults),
        },
        scaling_config=ScalingConfig(num_workers=count, use_gpu=kind == "GPU", resources_per_worker={kind: 1}),
        torch_config=TorchConfig(timeout_s=int(timeout)),
        # what happens after a fault is decided elsewhere, for all jobs alike
        run_config=RunConfig(
            name=name,
            **_storage_options(logs),
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0, max_preemption_failures=0),
        ),
    )


def _storage_options(logs: Path) -> dict:
    """Returns where Ray Train keeps its own files: a path, or a file system for what universal_pathlib makes of a
    URL."""
    if isinstance(logs, Path):
        return {"storage_path": str(logs)}
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    return {"storage_path": logs.path, "storage_filesystem": PyFileSystem(FSSpecHandler(logs.fs))}


def _train_loop_per_worker(config: dict) -> Any:
    import ray
    import ray.train
    import ray.train.torch

    registry, job, faults = config["identity"]
    worker = ray.train.get_context().get_world_rank() + 1  # 0 is who started them
    if worker == 1 and registry is not None:
        registry.set_group.remote(job, ray.util.get_current_placement_group())
    with sending_heartbeats(Heartbeat(job, registry, faults, worker=worker)) as heartbeat:
        try:
            return config["call"](config["argument"], str(ray.train.torch.get_device()))
        finally:
            heartbeat.try_to_send()  # its last step, which the decision on a fault needs


def _root_fault(error: Exception, step: int | None) -> Fault:
    """Returns the fault that began a failure: a worker that dies makes others fail that wait for it."""
    from ray.train import PreemptionError, WorkerGroupError

    if isinstance(error, PreemptionError):
        return Fault("preempted", "a machine is taken away", step, str(error))
    if not isinstance(error, WorkerGroupError):  # they could not be started or connected
        # others may keep a cluster busy for hours, so that counts no more than a machine that is taken away
        return Fault("preempted" if _is_out_of_room(error) else "system", _first_line(error), step, str(error))
    found: dict[str, Exception] = {}
    for failure in error.worker_failures.values():
        failure = getattr(failure, "health_check_failure", failure)  # what Ray Train wraps says more
        found.setdefault(_failure_kind(failure), failure)
    for found_kind in ("final", "preempted", "died", "program", "system", "connection"):
        if found_kind in found:
            kind: FaultKind = "system" if found_kind in ("died", "connection") else found_kind
            cause = describe_error(found[found_kind]) if kind == found_kind else _first_line(found[found_kind])
            return Fault(kind, cause, step, str(error))
    return Fault("system", _first_line(error), step, str(error))


def _is_out_of_room(error: Exception) -> bool:
    """Returns whether workers waited for resources in vain."""
    return is_start_timeout(getattr(error, "controller_failure", None))


def _failure_kind(failure: Exception) -> str:
    """Returns the kind of a worker's failure: that of its exception, or one of two more.

    "died" is for a process or machine that Ray says is gone, "connection" for a worker that lost the others, which
    is seldom the cause.
    """
    import torch.distributed as dist
    from ray.exceptions import RayError

    if isinstance(failure, RayError) or is_train_error(failure):
        return "died"
    gloo = type(failure) is RuntimeError and "gloo" in str(failure).lower()  # it has no class of its own
    return "connection" if gloo or isinstance(failure, dist.DistError) else fault_kind(failure)


def _first_line(error: Exception) -> str:
    """Returns the first line of an error that says something, for Ray's messages are long."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:300]


def _furthest_step(heartbeat: Heartbeat) -> int | None:
    """Returns the furthest step that a worker of this job has reported."""
    if heartbeat.registry is None:
        return None
    beats = ask_last_beats(heartbeat.registry).get(heartbeat.job, {}).values()
    return max((beat.step for beat, _ in beats if beat.step is not None), default=None)
