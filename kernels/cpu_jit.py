"""Compiles the CPU loops: without the GIL, kept on disk, and not without saying so."""

import hashlib
import logging
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numba
from numba.core import config, event
from numba.core.caching import UserProvidedCacheLocator

from kernels import cache

OTHERS = 8  # versions of the sources whose compiled loops are kept beside these
_config: Any = config  # numba makes its attributes from the environment, where no checker sees them


def _digest() -> str:
    """Returns a digest of everything that a loop may be made of: numba itself looks only at the file that a loop is in,
    and would keep on using what it once compiled into it from another."""
    sources = sorted(Path(__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]


def _prepare() -> Path:
    """Returns the folder for these sources, in NUMBA_CACHE_DIR or among the other caches.

    Of those for other sources, the ones that were made last stay: they may be another checkout's, or the code of a job
    that was submitted.
    """
    cache_path = _config.CACHE_DIR
    folder = (cache.usable_folder(Path(cache_path)) if cache_path else cache.folder()) / f"loops-{_digest()}"
    if not folder.exists():
        others = []
        for other in folder.parent.glob("loops-*"):
            with suppress(OSError):  # another process removes it as well
                others.append((other.stat().st_mtime_ns, other))
        for _, other in sorted(others)[:-OTHERS]:
            shutil.rmtree(other, ignore_errors=True)
    return folder


cache.prepare()
FOLDER = _prepare()


class BySources(UserProvidedCacheLocator):
    """Says where numba finds a compiled loop: by what all sources say, and not by where they lie or how old they are.

    So a copy of them, as a cluster makes for each job, has nothing to compile.
    """

    @classmethod
    def get_suitable_cache_subpath(cls, py_file: str) -> str:
        """Returns the name of the source file's folder, for a folder within the one that all sources name.

        Numba names what it keeps by the names of the file and the loop and by the line alone, which loops of two
        kernels may share.
        """
        return Path(py_file).parent.name

    def get_source_stamp(self) -> str:
        """Returns what must be the same for a compiled loop to be used again."""
        return FOLDER.name


def jit_loop(function: Callable | None = None, **options: Any) -> Any:
    """Decorates a CPU loop.

    Args:
        function: The loop; without it, the decorator with these options is returned.
        **options: Those of `numba.njit`, besides its cache and the GIL.

    Returns:
        The loop that is compiled when it is first called, or read from the disk where that was done before.
    """
    if function is None:
        return lambda function: jit_loop(function, **options)
    before = _config.CACHE_DIR, _config.CACHE_LOCATOR_CLASSES
    _config.CACHE_DIR, _config.CACHE_LOCATOR_CLASSES = str(FOLDER), f"{__name__}.{BySources.__name__}"
    try:
        return numba.njit(cache=True, nogil=True, **options)(function)
    finally:
        _config.CACHE_DIR, _config.CACHE_LOCATOR_CLASSES = before


class _Announcement(event.Listener):
    """Logs one warning in a process, when the first loop of ours is compiled instead of read from the disk, so that
    nobody wonders why a first call takes seconds."""

    announced = False

    def on_start(self, event):
        ours = event.data["dispatcher"].py_func.__module__.startswith(f"{__package__}.")
        if ours and not self.announced:
            self.announced = True
            logging.getLogger(__name__).warning(
                "compiling kernels for this processor: some seconds, once; kept in %s", FOLDER.parent
            )

    def on_end(self, event):
        """Does nothing: later calls are quick."""


event.register("numba:compile", _Announcement())
