"""Processes below a process, as Linux lists them: to stop them all for a while, or to hurt one."""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path


def below(*roots: int) -> list[tuple[int, str]]:
    """(pid, command line) of every living process that one of `roots` started, directly or not; parents first."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                children.setdefault(int(parent), []).append(int(stat.parent.name))
    found, waiting = [], list(roots)
    while waiting:
        for pid in children.get(waiting.pop(0), []):
            if pid not in found and pid not in roots:
                found.append(pid)
                waiting.append(pid)
    return [(pid, said) for pid in found if (said := _command(pid))]


def _command(pid: int) -> str:
    """Its command line, or the name that it gave itself in its place."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def named(root: int, part: str) -> list[int]:
    """Those below `root` in whose command line or name `part` is."""
    return [pid for pid, said in below(root) if part in said]


def seconds(root: int) -> float:
    """Processor time that `root` and all below it have used, to the hundredth of a second for each process."""
    ticks = 0
    for pid in (root, *(pid for pid, _ in below(root))):
        with contextlib.suppress(OSError):
            ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def freeze(*roots: int) -> list[int]:
    """Stops `roots` and all below them, also what is started meanwhile; -> what was stopped, for `thaw`."""
    stopped: list[int] = []
    while fresh := [pid for pid in (*roots, *(pid for pid, _ in below(*roots))) if pid not in stopped]:
        for pid in fresh:
            _send(pid, signal.SIGSTOP)
        stopped += fresh
    return stopped


def thaw(stopped: list[int]) -> None:
    for pid in reversed(stopped):  # parents last: they would take children that do not answer for dead
        _send(pid, signal.SIGCONT)


def kill(*roots: int) -> None:
    """Kills `roots` and all below them."""
    for pid in freeze(*roots):
        _send(pid, signal.SIGKILL)


def _send(pid: int, which: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, which)


def wait_for(what: Callable[[], object], seconds: float, told: str):
    """What `what()` returns as soon as that is true. Raises TimeoutError, which says `told`, after `seconds`."""
    until = time.monotonic() + seconds
    while not (found := what()):
        if time.monotonic() > until:
            raise TimeoutError(f"not within {seconds:.0f} s: {told}")
        time.sleep(0.05)
    return found
