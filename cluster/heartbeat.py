"""What a running job and its driver tell each other: that it lives, how far it is, whether it should leave."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

INTERVAL_S, ANSWER_S = 1.0, 10.0  # seconds between two beats, and until an answer to one is given up
# Seconds without an answer until a process ends itself: the driver is about to give its work to another
DRIVER_TIMEOUT_S = 90.0
EXIT_DRIVER_LOST = 71  # exit code of such a process


@dataclass
class Heartbeat:
    """Of the job that this process works at. Without a driver elsewhere (`registry` None) nobody listens."""

    job: str = ""
    registry: Any = None  # the driver's HeartbeatRegistry, an actor
    faults: tuple[str, ...] = ()  # why earlier attempts of this job ended
    step: int | None = None  # the last one that was completed
    stop_requested: bool = False  # to be asked after each step: then save, and raise Preempted
    worker: int = 0
    _ended: threading.Event = field(default_factory=threading.Event, repr=False)

    def beat(self, step: int) -> None:
        self.step = step

    def request_stop(self) -> None:
        self.stop_requested = True

    def send(self) -> None:
        """Says where this job is, at once, and hears whether it should leave. Raises what Ray does without an answer
        within ANSWER_S seconds."""
        if self.registry is None:
            return
        import ray

        here = ray.get_runtime_context().get_node_id()
        asked = self.registry.beat.remote(self.job, self.worker, here, os.getpid(), self.step)
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
        try:
            self.send()
        except Exception as error:  # the driver is gone, and Ray ends this process soon, or the network is
            print(f"no answer from the driver: {error}", file=sys.stderr, flush=True)
            return False
        return True


_current = Heartbeat()


def current() -> Heartbeat:
    """The heartbeat of the job that this process works at."""
    return _current


@contextmanager
def sending_heartbeats(heartbeat: Heartbeat) -> Iterator[Heartbeat]:
    """`heartbeat` is the current one while the block runs, and is told to its driver, if there is one, every second."""
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
    """The last that was heard of one worker of a job."""

    node: str
    pid: int
    step: int | None
    time: float
    ended: bool = False  # of itself: no more beats are to come


class HeartbeatRegistry:
    """Signs of life of all jobs, kept beside the driver as a Ray actor."""

    def __init__(self) -> None:
        self.beats: dict[str, dict[int, LastBeat]] = {}
        self.stop_requested: set[str] = set()
        self.scaling_up: set[str] = set()  # whose workers are to leave, for there is room for more
        self.groups: dict[str, Any] = {}  # the room, Ray's placement group, that a job's workers have

    def beat(self, job: str, worker: int, node: str, pid: int, step: int | None) -> bool:
        """-> whether the job should leave."""
        self.beats.setdefault(job, {})[worker] = LastBeat(node, pid, step, time.monotonic())
        return job in self.stop_requested or (worker > 0 and job in self.scaling_up)

    def last_beats(self) -> dict[str, dict[int, tuple[LastBeat, float]]]:
        """The last beat of each worker of each job, and how many seconds ago it came."""
        now = time.monotonic()
        return {job: {i: (beat, now - beat.time) for i, beat in of.items()} for job, of in self.beats.items()}

    def end(self, job: str, worker: int) -> None:
        """It has done its part, and is not missed."""
        if beat := self.beats.get(job, {}).get(worker):
            beat.ended = True

    def set_group(self, job: str, group: Any) -> None:
        """Workers begin in the room `group`; forgets those that they replace, which may have been more."""
        self.groups[job] = group
        self._forget_workers(job)

    def request_scale_up(self, job: str) -> None:
        """Tells the workers of `job` to leave for a larger group, which another call tells to begin:
        `finish_scale_up`."""
        self.scaling_up.add(job)

    def finish_scale_up(self, job: str) -> None:
        """Another group of workers is about to begin."""
        self.scaling_up.discard(job)
        self._forget_workers(job)

    def has_workers(self, job: str) -> bool:
        """Whether any have begun."""
        return any(worker > 0 for worker in self.beats.get(job, {}))

    def _forget_workers(self, job: str) -> None:
        self.beats[job] = {worker: beat for worker, beat in self.beats.get(job, {}).items() if worker == 0}

    def request_stop(self, jobs: list[str]) -> None:
        """Tells `jobs` to leave when they next beat."""
        self.stop_requested.update(jobs)

    def begin_attempt(self, job: str) -> Any:
        """Forgets an earlier attempt of `job` -> the room that its workers had, if any."""
        self.beats.pop(job, None)
        self.stop_requested.discard(job)
        self.scaling_up.discard(job)
        return self.groups.pop(job, None)


def ask_last_beats(registry: Any) -> dict[str, dict[int, tuple[LastBeat, float]]]:
    """Returns what `last_beats` of the actor `registry` says, a HeartbeatRegistry."""
    import ray

    found: Any = ray.get(registry.last_beats.remote())
    return found
