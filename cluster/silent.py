"""Processes that give no sign of life: who is stopped is killed, who only holds the interpreter's lock is not."""

import time
from typing import Any

from cluster.heartbeat import LastBeat
from cluster.resources import ClusterResources

SILENT_S = 60.0  # seconds without a sign of life until a process is looked at, and killed if it is stopped
MUTE_S = 900.0  # until it is killed anyway: imports from a slow disk, and compilers, may hold the interpreter's lock
PAUSE_S = 10.0  # seconds between two checks of a process
ANSWER_S = 5.0  # seconds for an answer that decides how the end of an attempt is told
Process = tuple[str, int]  # its machine and its number there


class SilentProcesses:
    """The checks of silent processes, which run on their own machines."""

    def __init__(self, resources: ClusterResources):
        self.resources = resources
        self.checks: dict[str, dict[Process, tuple[Any, float, float]]] = {}  # by job: (answer, silence, time)
        self.alive_at: dict[Process, float] = {}  # when its machine answered that it is not stopped

    def check(self, job: str, beat: LastBeat, age: float) -> None:
        """Has the process killed that gave its last `beat` of `job` so many seconds ago, if it is stopped or silent for
        MUTE_S."""
        checks, process = self.checks.setdefault(job, {}), (beat.node, beat.pid)
        if process in checks:
            answer, _, asked = checks[process]
            if not self._has_answered(answer):
                return
            killed = self._was_killed(answer, 0)
            if killed is False:
                self.alive_at[process] = time.monotonic()
            if killed or time.monotonic() - asked < PAUSE_S:
                return
        checks[process] = self.resources.kill(*process, only_stopped=age < MUTE_S), age, time.monotonic()

    def is_alive(self, beat: LastBeat) -> bool:
        """Whether its machine answered lately that the process is there and not stopped."""
        return time.monotonic() - self.alive_at.get((beat.node, beat.pid), float("-inf")) < 3 * PAUSE_S

    def why_killed(self, job: str, seconds: float) -> str:
        """Why an attempt of `job` was ended from here; nothing if it was not, or nobody answers within `seconds`.
        Forgets its processes."""
        for answer, age, _ in self.checks.pop(job, {}).values():
            if self._was_killed(answer, seconds):
                return f"no sign of life for {age:.0f} s: killed"
        return ""

    def _has_answered(self, answer: Any) -> bool:
        """Whether an answer, or the reason why there is none, has come."""
        import ray

        return bool(ray.wait([answer], timeout=0)[0])

    def _was_killed(self, answer: Any, seconds: float) -> bool | None:
        """Whether the process was killed; None without an answer: its machine may be gone."""
        import ray
        from ray.exceptions import RayError

        try:
            return ray.get(answer, timeout=seconds)
        except RayError:
            return None
