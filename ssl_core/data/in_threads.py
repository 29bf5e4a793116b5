"""Reads many images at once, in threads: Pillow decodes without the interpreter's lock."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

CHUNK = 256  # images of one piece of work
T = TypeVar("T")


def in_threads(work: Callable[[np.ndarray], T], ids: np.ndarray) -> Iterator[tuple[int, T]]:
    """Does `work` for images, a chunk at a time, in as many threads as this process may use cores.

    Args:
        work: Takes the numbers of some images, [k] int64.
        ids: The numbers of all, [n] int64.

    Yields:
        For each chunk in order, how many images it has and what `work` returned. Chunks that have not begun when the
        caller stops are left out.
    """
    chunks = np.split(ids, range(CHUNK, len(ids), CHUNK)) if len(ids) else []
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
    try:
        yield from zip(map(len, chunks), pool.map(work, chunks))
    finally:
        pool.shutdown(cancel_futures=True)
