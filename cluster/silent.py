"""Processes that give no sign of life: who is stopped is killed, who only holds the interpreter's lock is not."""

import time
from typing import Any

from cluster.heartbeat import Sign
from cluster.resources import Room

SILENT = 60.0  # seconds without a sign of life until a process is looked at, and killed if it is stopped
MUTE = 900.0  # until it is killed anyway: imports from a slow disk, and compilers, may hold the interpreter's lock
PAUSE = 10.0  # seconds between two looks at a process
ANSWER = 5.0  # seconds for an answer that decides how the end of an attempt is told
Process = tuple[str, int]  # its machine and its number there


class Silent:
    """The looks at silent processes, which are taken on their own machines."""

    def __init__(self, room: Room):
        self.room = room
        self.looks: dict[str, dict[Process, tuple[Any, float, float]]] = {}  # by job: (answer, silence, time)
        self.works: dict[Process, float] = {}  # when its machine answered that it is not stopped

    def look(self, job: str, sign: Sign, age: float) -> None:
        """Has the process killed that gave its last `sign` of `job` so many seconds ago, if it is stopped or MUTE."""
        looks, process = self.looks.setdefault(job, {}), (sign.node, sign.pid)
        if process in looks:
            answer, _, asked = looks[process]
            if not self._is_there(answer):
                return
            killed = self._answered(answer, 0)
            if killed is False:
                self.works[process] = time.monotonic()
            if killed or time.monotonic() - asked < PAUSE:
                return
        looks[process] = self.room.kill(*process, only_stopped=age < MUTE), age, time.monotonic()

    def at_work(self, sign: Sign) -> bool:
        """Whether its machine answered lately that the process is there and not stopped."""
        return time.monotonic() - self.works.get((sign.node, sign.pid), float("-inf")) < 3 * PAUSE

    def killed(self, job: str, seconds: float) -> str:
        """Why an attempt of `job` was ended from here; nothing if it was not, or nobody answers within `seconds`.
        Forgets its processes."""
        for answer, age, _ in self.looks.pop(job, {}).values():
            if self._answered(answer, seconds):
                return f"no sign of life for {age:.0f} s: killed"
        return ""

    def _is_there(self, answer: Any) -> bool:
        """Whether an answer, or the reason why there is none, has come."""
        import ray

        return bool(ray.wait([answer], timeout=0)[0])

    def _answered(self, answer: Any, seconds: float) -> bool | None:
        """Whether the process was killed; None without an answer: its machine may be gone."""
        import ray

        try:
            return ray.get(answer, timeout=seconds)
        except ray.exceptions.RayError:
            return None
