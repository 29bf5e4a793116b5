"""Where fetched datasets are kept between runs."""

import fcntl
import os
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ssl_core.files import write_bytes


def folder() -> Path:
    """$TILESPIN_CACHE, else tilespin/ in the user's cache directory."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("TILESPIN_CACHE") or Path(base) / "tilespin")


@contextmanager
def locked(path: Path):
    """Holds an exclusive lock on `path`, so that two processes do not fetch the same thing at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def arrays(name: str, make: Callable[[], dict[str, np.ndarray]], keys: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The arrays `keys` of dataset `name`, memory-mapped from the cache, made by `make()` the first time."""
    here = folder() / name
    files = {key: here / f"{key}.npy" for key in keys}
    if not all(path.exists() for path in files.values()):
        with locked(folder() / f"{name}.lock"):
            if not all(path.exists() for path in files.values()):
                for key, value in make().items():
                    write_bytes(files[key], _npy(value))
    return {key: np.load(path, mmap_mode="r", allow_pickle=False) for key, path in files.items()}


def _npy(value: np.ndarray) -> bytes:
    import io

    buffer = io.BytesIO()
    np.save(buffer, value, allow_pickle=False)
    return buffer.getvalue()
