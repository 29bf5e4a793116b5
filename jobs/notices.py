"""Warnings of jobs, which may run on other machines: kept in <study>/logs/warnings.log, where the driver reads them."""

import sys
from pathlib import Path


def log(study: Path) -> Path:
    return study / "logs" / "warnings.log"


def warn(study: Path, said: str) -> None:
    """Says it on this process's stderr, and appends it to the study's log."""
    line = f"warning: {' '.join(said.split())}"
    print(line, file=sys.stderr, flush=True)
    log(study).parent.mkdir(parents=True, exist_ok=True)
    with open(log(study), "a", errors="backslashreplace") as file:  # a file's name may be no text
        file.write(line + "\n")
