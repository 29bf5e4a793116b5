"""Checks processes that give no sign of life: who is stopped is killed, who only holds the interpreter's lock is
not."""

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
    """Keeps the checks of silent processes, which run on those processes' machines."""

    def __init__(self, resources: ClusterResources):
        self.resources = resources
        self.checks: dict[str, dict[Process, tuple[Any, float, float]]] = {}  # by job: (answer, silence, time)
        self.alive_at: dict[Process, float] = {}  # when its machine answered that it is not stopped

    def check(self, job: str, beat: LastBeat, age: float) -> None:
        """Has a silent process killed if it is stopped, or silent for longer than MUTE_S seconds.

        Args:
            job: The name of its job.
            beat: Its last heartbeat.
            age: How many seconds ago that came.
        """
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
        """Returns whether the process's machine answered lately that the process is there and not stopped."""
        return time.monotonic() - self.alive_at.get((beat.node, beat.pid), float("-inf")) < 3 * PAUSE_S

    def why_killed(self, job: str, seconds: float) -> str:
        """Returns why an attempt of `job` was ended by a check, and forgets the checks of its processes.

        Returns "" if no check ended it, or if no answer comes within `seconds`.
        """
        for answer, age, _ in self.checks.pop(job, {}).values():
            if self._was_killed(answer, seconds):
                return f"no sign of life for {age:.0f} s: killed"
        return ""

    def _has_answered(self, answer: Any) -> bool:
        """Returns whether an answer, or the reason why there is none, has come."""
        import ray

        return bool(ray.wait([answer], timeout=0)[0])

    def _was_killed(self, answer: Any, seconds: float) -> bool | None:
        """Returns whether the process was killed, or None without an answer: its machine may be gone."""
        import ray
        from ray.exceptions import RayError

        try:
            return ray.get(answer, timeout=seconds)
        except RayError:
            return None
