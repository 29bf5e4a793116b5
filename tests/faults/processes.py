"""Processes that a test started, found by who started whom and by nothing else."""

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
        with contextlib.suppress(OSError):
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
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def end(*roots: int) -> None:
    """SIGKILL to `roots` and all below them. They are stopped first, so that none starts another meanwhile."""
    found: list[int] = []
    while fresh := [pid for pid in (*roots, *(pid for pid, _ in below(*roots))) if pid not in found]:
        found += fresh
        for pid in fresh:
            _send(pid, signal.SIGSTOP)
    for pid in found:
        _send(pid, signal.SIGKILL)


def _send(pid: int, what: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, what)


def wait_for(what: Callable[[], object], seconds: float, told: str):
    """What `what()` returns as soon as that is true. Raises TimeoutError, which says `told`, after `seconds`."""
    until = time.monotonic() + seconds
    while not (found := what()):
        if time.monotonic() > until:
            raise TimeoutError(f"not within {seconds:.0f} s: {told}")
        time.sleep(0.05)
    return found
