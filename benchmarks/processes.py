"""Processes below a process, as Linux lists them: to stop them all for a while, or to hurt one."""

import contextlib
import os
import signal
from pathlib import Path


def tree(root: int) -> list[int]:
    """`root` and all processes that it started, and they, parents first."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it has just ended
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def named(root: int, part: str) -> list[int]:
    """Those of `tree(root)` whose command line, or the title that they gave themselves, has `part` in it."""
    found = []
    for pid in tree(root):
        with contextlib.suppress(OSError):
            if part in Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace"):
                found.append(pid)
    return found


def seconds(root: int) -> float:
    """Processor time that `tree(root)` has used so far, to the hundredth of a second for each process."""
    ticks = 0
    for pid in tree(root):
        with contextlib.suppress(OSError):
            ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def freeze(root: int) -> list[int]:
    """Stops the whole tree, also what is started meanwhile; -> what was stopped, for `thaw`."""
    stopped: list[int] = []
    while fresh := [pid for pid in tree(root) if pid not in stopped]:
        for pid in fresh:
            _signal(pid, signal.SIGSTOP)
        stopped += fresh
    return stopped


def thaw(stopped: list[int]) -> None:
    for pid in reversed(stopped):  # parents last: they would take children that do not answer for dead
        _signal(pid, signal.SIGCONT)


def kill(root: int) -> None:
    """Kills the whole tree."""
    for pid in freeze(root):
        _signal(pid, signal.SIGKILL)


def _signal(pid: int, which: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, which)
