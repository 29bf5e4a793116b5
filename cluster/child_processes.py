"""Finds the processes that this one has started, which libraries sometimes leave behind, and kills them. Linux only."""

import os
import signal
from contextlib import suppress
from pathlib import Path


def child_processes(part: bytes) -> set[int]:
    """Returns the ids of processes that this process has started and that have not ended.

    Args:
        part: Bytes that their command line has in it, such as a program's name.
    """
    pids, found = set(), set()
    for children in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
        with suppress(OSError):  # a thread that has just ended
            pids |= {int(pid) for pid in children.read_text().split()}
    for pid in pids:
        with suppress(OSError):  # a process that has
            if part in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.add(pid)
    return found


def kill_processes(pids: set[int]) -> None:
    """Kills processes, those that have ended left out.

    Args:
        pids: Their ids.
    """
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
