"""Exchanges signs of life between a running job and its driver: that it lives, its step and last metrics, and whether
it should stop."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

INTERVAL_S, ANSWER_S = 1.0, 10.0  # seconds between two beats, and until an answer to one is given up
# Seconds without an answer until a process ends itself: the driver is about to give its work to another
DRIVER_TIMEOUT_S = 90.0
EXIT_DRIVER_LOST = 71  # exit code of such a process


@dataclass
class Heartbeat:
    """Holds what the job of this process reports to its driver. Without a driver elsewhere nothing is sent.

    Attributes:
        job: The job's name.
        registry: The driver's HeartbeatRegistry, a Ray actor; None without a driver elsewhere.
        faults: Why earlier attempts of this job ended.
        step: The last step that was completed; None before the first.
        stop_requested: Whether to stop. A job asks after each step, then saves and raises Preempted.
        worker: 0 for the job's own process, else the worker's rank plus 1.
        on_metrics: Is called at once with the job's name and its metrics, where the driver is this process.
        metrics: The last metrics that the job reported, for a driver that shows progress; None before the first.
    """

    job: str = ""
    registry: Any = None
    faults: tuple[str, ...] = ()
    step: int | None = None
    stop_requested: bool = False
    worker: int = 0
    on_metrics: Callable[[str, dict[str, Any]], object] | None = None
    metrics: dict[str, Any] | None = None
    _ended: threading.Event = field(default_factory=threading.Event, repr=False)

    def beat(self, step: int) -> None:
        """Notes that `step` is completed, to be sent with the next heartbeat."""
        self.step = step

    def report(self, metrics: dict[str, Any]) -> None:
        """Notes the job's metrics, plain values by name, to be sent with the next heartbeat."""
        self.metrics = metrics
        if self.on_metrics:
            self.on_metrics(self.job, metrics)

    def request_stop(self) -> None:
        """Asks this job to save and stop after its current step."""
        self.stop_requested = True

    def send(self) -> None:
        """Sends this job's state to the driver at once, and learns whether the job should stop.

        Raises what Ray does if no answer comes within ANSWER_S seconds.
        """
        if self.registry is None:
            return
        import ray

        here = ray.get_runtime_context().get_node_id()
        asked = self.registry.beat.remote(self.job, self.worker, here, os.getpid(), self.step, self.metrics)
        self.stop_requested |= ray.get(asked, timeout=ANSWER_S)

    def _send_regularly(self) -> None:
        last_answer = time.monotonic()
        while not self._ended.is_set():
            if self.try_to_send():
                last_answer = time.monotonic()
            elif time.monotonic() - last_answer > DRIVER_TIMEOUT_S:
                os._exit(EXIT_DRIVER_LOST)
            self._ended.wait(INTERVAL_S)

    def try_to_send(self) -> bool:
        """Sends as `send` does and returns whether an answer came; a failure is printed to stderr."""
        try:
            self.send()
        except Exception as error:  # the driver is gone, and Ray ends this process soon, or the network is
            print(f"no answer from the driver: {error}", file=sys.stderr, flush=True)
            return False
        return True


_current = Heartbeat()


def current() -> Heartbeat:
    """Returns the heartbeat of the job that this process works at."""
    return _current


@contextmanager
def sending_heartbeats(heartbeat: Heartbeat) -> Iterator[Heartbeat]:
    """Makes `heartbeat` the current one while the block runs, and sends it to its driver, if any, every second."""
    global _current
    before, _current = _current, heartbeat
    thread = threading.Thread(target=heartbeat._send_regularly, daemon=True, name="heartbeat")
    if heartbeat.registry is not None:
        heartbeat.try_to_send()  # before the block, which may import and then keep the thread from it
        thread.start()
    try:
        yield heartbeat
    finally:
        heartbeat._ended.set()
        if heartbeat.registry is not None:
            thread.join(5 * INTERVAL_S)
            heartbeat.registry.end.remote(heartbeat.job, heartbeat.worker)
        _current = before


@dataclass
class LastBeat:
    """Holds the last heartbeat of one worker of a job.

    Attributes:
        node: The id of its machine.
        pid: Its process on that machine.
        step: The last step that it had completed.
        time: When the heartbeat came, by the registry's monotonic clock in seconds.
        metrics: The last metrics that it had reported.
        ended: Whether the worker said that it has ended, so that no more heartbeats are to come.
    """

    node: str
    pid: int
    step: int | None
    time: float
    metrics: dict[str, Any] | None = None
    ended: bool = False


class HeartbeatRegistry:
    """Collects the heartbeats of all jobs. It is kept beside the driver as a Ray actor."""

    def __init__(self) -> None:
        self.beats: dict[str, dict[int, LastBeat]] = {}
        self.stop_requested: set[str] = set()
        self.scaling_up: set[str] = set()  # jobs whose workers are to stop, for there are resources for more
        self.groups: dict[str, Any] = {}  # the placement group of each job's workers

    def beat(
        self, job: str, worker: int, node: str, pid: int, step: int | None, metrics: dict[str, Any] | None = None
    ) -> bool:
        """Records a heartbeat and returns whether the job should stop."""
        self.beats.setdefault(job, {})[worker] = LastBeat(node, pid, step, time.monotonic(), metrics)
        return job in self.stop_requested or (worker > 0 and job in self.scaling_up)

    def last_beats(self) -> dict[str, dict[int, tuple[LastBeat, float]]]:
        """Returns, by job and worker, the last heartbeat and how many seconds ago it came."""
        now = time.monotonic()
        return {job: {i: (beat, now - beat.time) for i, beat in of.items()} for job, of in self.beats.items()}

    def end(self, job: str, worker: int) -> None:
        """Records that a worker has ended by itself, so that no more heartbeats are expected."""
        if beat := self.beats.get(job, {}).get(worker):
            beat.ended = True

    def set_group(self, job: str, group: Any) -> None:
        """Records the placement group of a job's new workers, and forgets the workers that they replace."""
        self.groups[job] = group
        self._forget_workers(job)

    def request_scale_up(self, job: str) -> None:
        """Asks the workers of `job` to stop so that a larger group can start, until `finish_scale_up` is called."""
        self.scaling_up.add(job)

    def finish_scale_up(self, job: str) -> None:
        """Ends what `request_scale_up` began: another group of workers is about to start."""
        self.scaling_up.discard(job)
        self._forget_workers(job)

    def has_workers(self, job: str) -> bool:
        """Returns whether any worker of `job` has started."""
        return any(worker > 0 for worker in self.beats.get(job, {}))

    def _forget_workers(self, job: str) -> None:
        self.beats[job] = {worker: beat for worker, beat in self.beats.get(job, {}).items() if worker == 0}

    def request_stop(self, jobs: list[str]) -> None:
        """Asks `jobs` to stop when they next send a heartbeat."""
        self.stop_requested.update(jobs)

    def begin_attempt(self, job: str) -> Any:
        """Forgets an earlier attempt of `job` and returns the placement group that its workers had, or None."""
        self.beats.pop(job, None)
        self.stop_requested.discard(job)
        self.scaling_up.discard(job)
        return self.groups.pop(job, None)


def ask_last_beats(registry: Any) -> dict[str, dict[int, tuple[LastBeat, float]]]:
    """Returns the answer of `last_beats` of the actor `registry`, which is a HeartbeatRegistry."""
    import ray

    found: Any = ray.get(registry.last_beats.remote())
    return found
