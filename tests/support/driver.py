"""A driver: the command `tilespin` in a process of its own, whose words are kept with the time at which they came."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.harness.processes import below, kill
from support.command import ROOT, environment

AGAIN = re.compile(r"^again +(?P<job>\S+): (?P<cause>.*?)(?: \(at step (?P<step>\d+)\))?; attempt (?P<attempt>\d+)")


@dataclass(frozen=True)
class Again:
    """The driver says that an attempt of `job` ended in a fault, at `time` by time.monotonic()."""

    time: float
    job: str
    cause: str
    step: int | None
    attempt: int


class Driver:
    """Use as a context manager: its end kills the process and what it started."""

    def __init__(
        self,
        *arguments,
        env: Mapping[str, str] | None = None,
        through: Callable[..., list[str]] = lambda *command: [*command],
    ):
        """`through` makes of the command one that runs it elsewhere."""
        self.lines: list[tuple[float, str]] = []
        command = through(sys.executable, "-m", "jobs.cli", *map(str, arguments))
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment() | {"COLUMNS": "300"} | dict(env or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append((time.monotonic(), line.rstrip("\n")))

    def __enter__(self) -> "Driver":
        return self

    def __exit__(self, *_) -> None:
        if self.process.poll() is None:
            kill(self.process.pid)
        self.wait(60)

    def wait(self, seconds: float) -> int:
        """Its exit code, when all that it said has been read. Raises subprocess.TimeoutExpired."""
        code = self.process.wait(seconds)
        self.reader.join(seconds)
        return code

    def running(self) -> bool:
        return self.process.poll() is None

    def said(self) -> str:
        return "\n".join(line for _, line in self.lines)

    def kill(self) -> None:
        """The driver alone: what it started is to notice by itself."""
        self.process.kill()
        self.wait(60)

    def ask_to_leave(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def again(self) -> list[Again]:
        """All attempts that ended in faults so far."""
        found = [(when, match) for when, line in list(self.lines) if (match := AGAIN.match(line))]
        return [
            Again(when, m["job"], m["cause"], int(m["step"]) if m["step"] else None, int(m["attempt"]))
            for when, m in found
        ]

    def below(self) -> list[tuple[int, str]]:
        return below(self.process.pid)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
