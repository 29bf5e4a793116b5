"""Compiles the CPU loops: without the GIL, kept on disk, and not without saying so."""

import hashlib
import logging
import shutil
from pathlib import Path

import numba
from numba.core import event

from kernels import cache


def _digest() -> str:
    """Of everything that a loop may be made of: numba itself looks only at the file that a loop is in, and would
    keep on using what it once compiled into it from another."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]


def _folder() -> Path:
    """Where compiled loops are kept: NUMBA_CACHE_DIR, else beside the code, else among the other caches."""
    if numba.config.CACHE_DIR:
        return cache.usable(Path(numba.config.CACHE_DIR))
    beside = Path(__file__).parent / "__pycache__"
    return cache.folder() if cache.trouble(beside) else beside


def _prepare() -> Path:
    """The folder for these sources; those for earlier ones go."""
    folder = _folder() / f"loops-{_digest()}"
    for other in folder.parent.glob("loops-*") if not folder.exists() else ():
        shutil.rmtree(other, ignore_errors=True)
    return folder


cache.prepare()
FOLDER = _prepare()


def loop(function=None, **options):
    """Decorates a CPU loop: `numba.njit`, with its options."""
    if function is None:
        return lambda function: loop(function, **options)
    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(FOLDER)
    try:
        return numba.njit(cache=True, nogil=True, **options)(function)
    finally:
        numba.config.CACHE_DIR = before


class _Announcement(event.Listener):
    """Logs one warning in a process, when the first loop of ours is compiled instead of read from the disk, so that
    nobody wonders why a first call takes seconds."""

    said = False

    def on_start(self, event):
        ours = event.data["dispatcher"].py_func.__module__.startswith(f"{__package__}.")
        if ours and not self.said:
            self.said = True
            logging.getLogger(__name__).warning(
                "compiling kernels for this processor: some seconds, once; kept in %s", FOLDER.parent
            )

    def on_end(self, event):
        """Nothing: later calls are quick."""


event.register("numba:compile", _Announcement())
