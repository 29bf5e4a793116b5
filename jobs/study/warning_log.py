"""Keeps warnings of jobs, which may run on other machines, in <study>/logs/warnings*.log, where the driver looks."""

import contextlib
import os
import socket
import sys
from functools import cache
from pathlib import Path

from ssl_core.errors import StorageError
from ssl_core.storage.files import glob_files, is_local, write_bytes
from ssl_core.storage.retry import short_deadline


def log_files(study: Path) -> list[Path]:
    """Returns the files of warnings: one on a disk, one for each process in a store, where nothing can be appended
    to."""
    return glob_files(study, "logs/warnings*.log")


def warn(study: Path, message: str) -> None:
    """Prints a warning on this process's stderr, and adds it to the study's log, if that can be written."""
    line = f"warning: {' '.join(message.split())}"
    print(line, file=sys.stderr, flush=True)
    with contextlib.suppress(OSError, StorageError), short_deadline():
        _keep(study, line)


def _keep(study: Path, line: str) -> None:
    if not is_local(study):
        lines = _kept_lines(str(study))
        lines.append(line + "\n")
        log = study / "logs" / f"warnings-{socket.gethostname()}-{os.getpid()}.log"
        write_bytes(log, "".join(lines).encode(errors="backslashreplace"))
        return
    (study / "logs").mkdir(parents=True, exist_ok=True)
    with open(study / "logs" / "warnings.log", "a", errors="backslashreplace") as file:  # a file's name may be no text
        file.write(line + "\n")


@cache
def _kept_lines(study: str) -> list[str]:
    """Returns all warnings of this process about a study, as a list to append to."""
    return []
