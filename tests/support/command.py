"""How tests run the command line: in a process of its own, as a user would."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
QUIET = {"OMP_NUM_THREADS": "1", "COLUMNS": "120", "NO_COLOR": "1", "WANDB_MODE": "offline"}


def complaint(stderr: str) -> str:
    """What the command line wrote, without the line that a busy machine adds: that modules are still being loaded."""
    return stderr.removeprefix("tilespin: loading modules\n")


def environment() -> dict[str, str]:
    """One thread, offline, and no cluster but our own."""
    return {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | QUIET
