"""A study under faults: strikes at it, retypes its command as an operator's supervisor would, and keeps a record."""

import os
import random
import re
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.harness.local_nodes import Machine, Machines
from benchmarks.harness.processes import wait_for
from support import study_audit
from support.driver import Driver
from support.store import FailingStore

RUN = re.compile(r"\w+-[0-9a-f]{12}")
PATIENCE = 240.0  # seconds until what was struck must be at work again
NOTICE, STORE_SECONDS = 20, 15  # seconds of a drained machine, and that a store fails


@dataclass
class Stroke:
    """One fault: times in seconds since the study began, or since the fault."""

    kind: str
    at: float
    struck: list[str]  # jobs
    saved: dict[str, int]  # the newest checkpoint of each training then
    detected: float | None = None
    resumed: float | None = None
    resumed_from: dict[str, int] = field(default_factory=dict)
    steps_lost: int | None = None  # of the trainings that were struck; None if nobody saw how far they were


class Siege:
    """Of a study whose command is `arguments`, stored at `root`."""

    def __init__(
        self, machines: Machines, store: FailingStore | None, arguments: list, root: Any, env: dict, seed: int
    ):
        self.machines, self.store, self.arguments, self.root, self.env = machines, store, arguments, root, env
        self.random = random.Random(seed)
        self.began, self.strokes, self.typed = time.monotonic(), [], 0
        self.drivers: list[Driver] = []
        self.type()

    @property
    def driver(self) -> Driver:
        return self.drivers[-1]

    def type(self) -> None:
        self.drivers.append(Driver(*self.arguments, env=self.env | self.machines.environment()))

    def working(self) -> list[tuple[Machine, int, str]]:
        """(machine, pid, job) of all at work."""
        return [
            (machine, pid, said.removeprefix("ray::"))
            for machine in self.machines.working
            for pid, said in machine.workers()
        ]

    def strike(self, kind: str, pause: float) -> Stroke:
        """After `pause` seconds of work. Returns when what was struck is at work again, or done."""
        wait_for(lambda: self._busy() or not self.driver.running(), PATIENCE, "something to strike at")
        time.sleep(pause)
        targets = wait_for(lambda: self._busy() or not self.driver.running(), PATIENCE, "something to strike at")
        if targets is True:
            raise AssertionError(f"the study ended after {len(self.strokes)} faults:\n{self.driver.said()}")
        machine, pid, job = self.random.choice(targets)
        whole = kind in ("driver killed", "driver told to leave", "head lost", "store busy", "store silent")
        struck = sorted(
            {
                name
                for one, _, name in self.working()
                if whole or (one is machine and (name == job or kind not in SINGLE))
            }
        )
        saved = {name: study_audit.saved(self.root / "pretrain" / name) for name in struck if RUN.fullmatch(name)}
        before = {name: self._restarts(name) for name in saved}
        stroke = Stroke(kind, round(time.monotonic() - self.began, 1), struck, saved)
        self.strokes.append(stroke)
        self.since, self.of = time.monotonic(), self.driver
        after = threading.Thread(target=KINDS[kind](self, machine, pid) or (lambda: None))
        after.start()
        self._settled(stroke, before, whole)
        after.join()
        self._say(stroke)
        return stroke

    def _busy(self) -> list[tuple[Machine, int, str]]:
        """Trainings that are past their beginning, else any work."""
        at_work = self.working()
        training = [
            one for one in at_work if RUN.fullmatch(one[2]) and study_audit.rows(self.root / "pretrain" / one[2])
        ]
        return training or [one for one in at_work if not RUN.fullmatch(one[2])]

    def _restarts(self, run: str) -> list[dict]:
        return [row for row in study_audit.rows(self.root / "pretrain" / run) if "restart" in row]

    def _done(self, job: str) -> bool:
        """Whether the driver told of its end, or of that of one that needs it."""
        label = job.removeprefix("features/")
        return any(
            re.search(rf"(trained|evaluated) .*{re.escape(label)}\b", line) for line in self.driver.said().splitlines()
        )

    def _at_work_anew(self, job: str) -> bool:
        return any(again.time > self.since and again.job == job for again in self.of.again()) and any(
            one == job for _, _, one in self.working()
        )

    def _settled(self, stroke: Stroke, before: dict[str, list], whole: bool) -> None:
        """Waits until each that was struck is at work again or done, and notes how far it was thrown back."""
        furthest: dict[str, int] = {}

        def settled() -> bool:
            for again in self.of.again():
                if again.time > self.since and again.job in stroke.struck:
                    stroke.detected = stroke.detected or round(again.time - self.since, 1)
                    if again.step is not None:
                        furthest[again.job] = again.step
            if kind_of_store(stroke.kind):
                return any(row for row in self.working())
            for job in stroke.struck:
                new = self._restarts(job)[len(before[job]) :] if job in before else []
                if new:
                    stroke.resumed_from[job] = new[0]["step"]
                elif self._done(job) or not self.driver.running():
                    continue
                elif job in before or not (whole or self._at_work_anew(job)):
                    return False
            return True

        wait_for(settled, PATIENCE, f"{stroke}: {self.driver.said()}")
        stroke.resumed = round(time.monotonic() - self.since, 1)
        for run, step in stroke.resumed_from.items():
            assert step >= stroke.saved[run], f"{run} was thrown back behind its last checkpoint: {stroke}"
        known = [max(0, furthest[run] - step) for run, step in stroke.resumed_from.items() if run in furthest]
        stroke.steps_lost = sum(known) if known else None

    def end(self, seconds: float) -> None:
        """Waits until the study is complete; the command is typed again whenever it ended otherwise."""
        until = time.monotonic() + seconds
        while (code := self.driver.wait(until - time.monotonic())) != 0:
            assert self.typed < 5, f"exit {code}: {self.driver.said()}"
            self.typed += 1
            self.type()

    def close(self) -> None:
        for driver in self.drivers:
            driver.__exit__()

    def record(self) -> list[dict]:
        return [asdict(stroke) for stroke in self.strokes]

    def _say(self, stroke: Stroke) -> None:
        lost = "?" if stroke.steps_lost is None else stroke.steps_lost
        print(
            f"{len(self.strokes):2}  {stroke.kind:21} at {stroke.at:6.1f} s  detected {_seconds(stroke.detected)}  "
            f"resumed {_seconds(stroke.resumed)}  steps lost {lost:3}  {', '.join(stroke.struck)}",
            flush=True,
        )


def _seconds(value: float | None) -> str:
    return "     -" if value is None else f"{value:4.1f} s"


def kind_of_store(kind: str) -> bool:
    return kind.startswith("store")


def kill_worker(siege: Siege, machine: Machine, pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def freeze_worker(siege: Siege, machine: Machine, pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)


def kill_raylet(siege: Siege, machine: Machine, pid: int) -> Callable:
    machine.kill_raylet()
    return lambda: siege.machines.replace(machine)


def cut_power(siege: Siege, machine: Machine, pid: int) -> Callable:
    machine.cut()
    return lambda: siege.machines.replace(machine)


def fall_silent(siege: Siege, machine: Machine, pid: int) -> Callable:
    machine.fall_silent()

    def go() -> None:
        time.sleep(NOTICE)
        machine.cut()
        siege.machines.replace(machine)

    return go


def drain(siege: Siege, machine: Machine, pid: int) -> Callable:
    """It goes when its time is over, left by all or not."""
    siege.machines.drain(machine, NOTICE)

    def go() -> None:
        time.sleep(NOTICE)
        machine.cut()
        siege.machines.replace(machine)

    return go


def kill_driver(siege: Siege, machine: Machine, pid: int) -> None:
    siege.driver.kill()
    siege.type()


def ask_driver_to_leave(siege: Siege, machine: Machine, pid: int) -> None:
    siege.driver.ask_to_leave()
    assert siege.driver.wait(PATIENCE) in (0, 143), siege.driver.said()
    siege.type()


def lose_head(siege: Siege, machine: Machine, pid: int) -> None:
    """The whole cluster and the driver on it."""
    siege.driver.kill()
    siege.machines.cut()
    siege.machines.start()
    siege.type()


def fail_store(siege: Siege, machine: Machine, pid: int) -> None:
    siege.store.fail(STORE_SECONDS)
    time.sleep(STORE_SECONDS)


def stall_store(siege: Siege, machine: Machine, pid: int) -> None:
    siege.store.stall(STORE_SECONDS)
    time.sleep(STORE_SECONDS)


# What they return, if anything, is done while it is watched how the study goes on
KINDS: dict[str, Callable[[Siege, Machine, int], Callable | None]] = {
    "worker killed": kill_worker,
    "worker frozen": freeze_worker,
    "raylet killed": kill_raylet,
    "power cut": cut_power,
    "machine silent": fall_silent,
    "machine drained": drain,
    "driver killed": kill_driver,
    "driver told to leave": ask_driver_to_leave,
    "head lost": lose_head,
    "store busy": fail_store,
    "store silent": stall_store,
}
SINGLE = {"worker killed", "worker frozen"}  # these strike one process, the others all of a machine or more
