"""Warnings of jobs, which may run on other machines: kept in <study>/logs/warnings*.log, where the driver looks."""

import contextlib
import os
import socket
import sys
from functools import cache
from pathlib import Path

from ssl_core.errors import StoreFailed
from ssl_core.storage.files import found, is_local, write_bytes
from ssl_core.storage.retry import briefly


def logs(study: Path) -> list[Path]:
    """Of one file on a disk; of one for each process that warned in a store, where nothing can be appended to."""
    return found(study, "logs/warnings*.log")


def warn(study: Path, said: str) -> None:
    """Says it on this process's stderr, and adds it to the study's log, if that can be written."""
    line = f"warning: {' '.join(said.split())}"
    print(line, file=sys.stderr, flush=True)
    with contextlib.suppress(OSError, StoreFailed), briefly():
        _keep(study, line)


def _keep(study: Path, line: str) -> None:
    if not is_local(study):
        lines = _said(str(study))
        lines.append(line + "\n")
        log = study / "logs" / f"warnings-{socket.gethostname()}-{os.getpid()}.log"
        write_bytes(log, "".join(lines).encode(errors="backslashreplace"))
        return
    (study / "logs").mkdir(parents=True, exist_ok=True)
    with open(study / "logs" / "warnings.log", "a", errors="backslashreplace") as file:  # a file's name may be no text
        file.write(line + "\n")


@cache
def _said(study: str) -> list[str]:
    """All that this process has said of it."""
    return []
