"""What a running job and its driver tell each other: that it lives, how far it is, whether it should leave."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

BEAT, ANSWER = 1.0, 10.0  # seconds between signs of life, and until an answer to one is given up
ALONE = 90.0  # seconds without an answer until a process ends itself: the driver is about to give its work to another
CUT_OFF = 71  # exit code of such a process


@dataclass
class Pulse:
    """Of the job that this process works at. Without a driver elsewhere (`board` None) nobody listens."""

    job: str = ""
    board: Any = None  # the driver's Board, an actor
    faults: tuple[str, ...] = ()  # why earlier attempts of this job ended
    step: int | None = None  # the last one that was completed
    leaving: bool = False  # to be asked after each step: then save, and raise Preempted
    worker: int = 0
    _ended: threading.Event = field(default_factory=threading.Event, repr=False)

    def beat(self, step: int) -> None:
        self.step = step

    def leave(self) -> None:
        self.leaving = True

    def tell(self) -> None:
        """Says where this job is, at once, and hears whether it should leave. Raises what Ray does without an answer
        within ANSWER seconds."""
        if self.board is None:
            return
        import ray

        here = ray.get_runtime_context().get_node_id()
        asked = self.board.beat.remote(self.job, self.worker, here, os.getpid(), self.step)
        self.leaving |= ray.get(asked, timeout=ANSWER)

    def _follow(self) -> None:
        heard = time.monotonic()
        while not self._ended.is_set():
            if self.try_to_tell():
                heard = time.monotonic()
            elif time.monotonic() - heard > ALONE:
                os._exit(CUT_OFF)
            self._ended.wait(BEAT)

    def try_to_tell(self) -> bool:
        try:
            self.tell()
        except Exception as error:  # the driver is gone, and Ray ends this process soon, or the network is
            print(f"no answer from the driver: {error}", file=sys.stderr, flush=True)
            return False
        return True


_current = Pulse()


def current() -> Pulse:
    """The pulse of the job that this process works at."""
    return _current


@contextmanager
def beating(pulse: Pulse) -> Iterator[Pulse]:
    """`pulse` is the current one while the block runs, and is told to its driver, if there is one, every second."""
    global _current
    before, _current = _current, pulse
    thread = threading.Thread(target=pulse._follow, daemon=True, name="pulse")
    if pulse.board is not None:
        pulse.try_to_tell()  # before the block, which may import and then keep the thread from it
        thread.start()
    try:
        yield pulse
    finally:
        pulse._ended.set()
        if pulse.board is not None:
            thread.join(5 * BEAT)
            pulse.board.end.remote(pulse.job, pulse.worker)
        _current = before


@dataclass
class Sign:
    """The last that was heard of one worker of a job."""

    node: str
    pid: int
    step: int | None
    time: float
    ended: bool = False  # of itself: no more signs are to come


class Board:
    """Signs of life of all jobs, kept beside the driver as a Ray actor."""

    def __init__(self) -> None:
        self.signs: dict[str, dict[int, Sign]] = {}
        self.leaving: set[str] = set()
        self.growing: set[str] = set()  # whose workers are to leave, for there is room for more
        self.groups: dict[str, Any] = {}  # the room, Ray's placement group, that a job's workers have

    def beat(self, job: str, worker: int, node: str, pid: int, step: int | None) -> bool:
        """-> whether the job should leave."""
        self.signs.setdefault(job, {})[worker] = Sign(node, pid, step, time.monotonic())
        return job in self.leaving or (worker > 0 and job in self.growing)

    def heard(self) -> dict[str, dict[int, tuple[Sign, float]]]:
        """The last sign of each worker of each job, and how many seconds ago it came."""
        now = time.monotonic()
        return {job: {i: (sign, now - sign.time) for i, sign in of.items()} for job, of in self.signs.items()}

    def end(self, job: str, worker: int) -> None:
        """It has done its part, and is not missed."""
        if sign := self.signs.get(job, {}).get(worker):
            sign.ended = True

    def regroup(self, job: str, group: Any) -> None:
        """Workers begin in the room `group`; forgets those that they replace, which may have been more."""
        self.groups[job] = group
        self._forget_workers(job)

    def outgrow(self, job: str) -> None:
        """Tells the workers of `job` to leave for a larger group, which another call tells to begin: `resize`."""
        self.growing.add(job)

    def resize(self, job: str) -> None:
        """Another group of workers is about to begin."""
        self.growing.discard(job)
        self._forget_workers(job)

    def has_workers(self, job: str) -> bool:
        """Whether any have begun."""
        return any(worker > 0 for worker in self.signs.get(job, {}))

    def _forget_workers(self, job: str) -> None:
        self.signs[job] = {worker: sign for worker, sign in self.signs.get(job, {}).items() if worker == 0}

    def leave(self, jobs: list[str]) -> None:
        """Tells `jobs` to leave when they next beat."""
        self.leaving.update(jobs)

    def begin(self, job: str) -> Any:
        """Forgets an earlier attempt of `job` -> the room that its workers had, if any."""
        self.signs.pop(job, None)
        self.leaving.discard(job)
        self.growing.discard(job)
        return self.groups.pop(job, None)
