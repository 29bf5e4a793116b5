"""What is fetched or made once and kept between runs, in the folder that kernels/cache.py decides on."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from kernels.cache import folder, requested_folder
from ssl_core.storage.files import write_bytes


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on the file `path` during the block, so that two processes do not fetch the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def cached_arrays(name: str, make: Callable[[], dict[str, np.ndarray]], keys: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Returns a dataset's arrays, memory-mapped from the cache, where the first call puts them.

    A cache that can only be read will do if the arrays are there.

    Args:
        name: The folder of the arrays in the cache.
        make: Makes all arrays by their keys; called only if one of them is not in the cache.
        keys: Names of the arrays.

    Returns:
        The arrays by their keys, read-only.

    Raises:
        OSError: If the cache cannot be written or read.
    """
    files = _array_files(requested_folder() / name, keys)
    if not _complete(files):
        files = _array_files(folder() / name, keys)
    if not _complete(files):
        with file_lock(folder() / f"{name}.lock"):
            if not _complete(files):
                for key, value in make().items():
                    write_bytes(files[key], _npy_bytes(value))
    return {key: np.load(path, mmap_mode="r", allow_pickle=False) for key, path in files.items()}


def _array_files(place: Path, keys: tuple[str, ...]) -> dict[str, Path]:
    return {key: place / f"{key}.npy" for key in keys}


def _complete(files: dict[str, Path]) -> bool:
    return all(os.path.exists(path) for path in files.values())


def _npy_bytes(value: np.ndarray) -> bytes:
    import io

    buffer = io.BytesIO()
    np.save(buffer, value, allow_pickle=False)
    return buffer.getvalue()
