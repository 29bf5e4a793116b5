"""Decides how many workers an elastic group has: what fits when it starts, and more once more fits.

Ray Train resizes groups too, but from a list of machines that is up to 20 s old. It goes on for three minutes to
count what a lost controller had reserved, does not see what other programs use, and ends a group before the larger
one has its resources. So it is asked for groups of one size only, and the size is decided here.
"""

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from cluster.heartbeat import Heartbeat
from cluster.resources import per_node

START_TIMEOUT_S = 15.0  # seconds that a group waits for room that may be a dead machine's, until a smaller one is tried
POLL_S = 1.0  # seconds between two looks whether the group has ended meanwhile
# Seconds that a group works before it looks for room for more workers, twice as long after each start in vain
SCALE_UP_AFTER_S = 30.0
START_TIMEOUT_VARIABLE = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"


def group_size(min_workers: int, max_workers: int, capacities: Iterable[float]) -> int:
    """Returns how many workers fit on machines of these capacities, within the given limits.

    Args:
        min_workers: The fewest to return, even if they do not fit.
        max_workers: The most to return.
        capacities: For each machine, the CPUs or GPUs that it has; a worker takes one.
    """
    return max(min_workers, min(max_workers, sum(int(count) for count in capacities)))


@contextmanager
def start_within(seconds: float) -> Iterator[None]:
    """Limits how long Ray Train waits for the resources of a worker group that is started in the block.

    Args:
        seconds: Time after which Ray Train gives up the start.
    """
    before = os.environ.get(START_TIMEOUT_VARIABLE)
    os.environ[START_TIMEOUT_VARIABLE] = f"{seconds:g}"
    try:
        yield
    finally:
        if before is None:
            del os.environ[START_TIMEOUT_VARIABLE]
        else:
            os.environ[START_TIMEOUT_VARIABLE] = before


class ScaleUpMonitor:
    """Looks for resources for more workers while a group works in the block, and asks the group to stop once there
    are any.

    A resource counts as free where a task that needs it runs: a machine that counts as alive may be dead, and one
    that an autoscaler is to start comes only if something waits for it. Such tasks end with this process, as nothing
    else that Ray reserves does. Without a driver elsewhere the monitor does nothing.

    Args:
        more: The most workers to look for.
        kind: What each worker needs one of: "CPU" or "GPU".
        heartbeat: That of the group's job.
        after: Seconds that the group works before the monitor looks.

    Attributes:
        found: For how many more workers there are resources; 0 until the group was asked to stop.
    """

    def __init__(self, more: int, kind: str, heartbeat: Heartbeat, after: float):
        self.more, self.kind, self.heartbeat = more if heartbeat.registry is not None else 0, kind, heartbeat
        self.after, self.found = after, 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._find_room, daemon=True, name="growth")

    def __enter__(self) -> "ScaleUpMonitor":
        if self.more:
            self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.ended.set()
        if self.more:
            self.thread.join()
            self.heartbeat.registry.finish_scale_up.remote(self.heartbeat.job)

    def _find_room(self) -> None:
        import ray
        from ray.exceptions import RayError

        registry, job = self.heartbeat.registry, self.heartbeat.job
        placeholder = ray.remote(_placeholder).options(
            name="room for a worker",
            num_cpus=float(self.kind == "CPU"),
            num_gpus=float(self.kind == "GPU"),
            max_retries=0,
        )
        while not ray.get(registry.has_workers.remote(job)):  # it may still wait for its own room
            if self.ended.wait(POLL_S):
                return
        while not self.ended.wait(self.after):
            tasks, ready = [placeholder.remote() for _ in range(self.more)], []
            while not (ready or self.ended.is_set()):
                ready, _ = ray.wait(tasks, timeout=POLL_S)
            for task in tasks:
                ray.cancel(task)
            with contextlib.suppress(RayError):  # the machine may be gone again
                if ready and ray.get(ready[0]):
                    self.found = group_size(1, self.more, per_node(self.kind, free=True))
                    registry.request_scale_up.remote(job)
                    return


def _placeholder() -> bool:
    return True
