"""Shares the rows of a CPU loop among threads."""

import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import torch

PARTS = 8  # of the work, for each thread


WORTH_THREADS = 100_000  # outputs: below, handing work to a thread costs more than it saves


_THREAD = threading.local()


@functools.lru_cache(maxsize=1)
def _thread_pool(process: int, count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count)


def single_threaded() -> None:
    """Makes the current thread do all work of the CPU loops that it calls itself from now on: one of many that do."""
    _THREAD.alone = True


def parallel_rows(loop: Callable, rows: int, elements: int, *arguments) -> None:
    """Runs a loop over rows, in as many threads as torch uses where the work is worth it.

    Args:
        loop: Called as loop(first, last, *arguments) for the rows first..last-1. It must release the GIL, and its rows
            must not depend on each other.
        rows: How many there are.
        elements: How many outputs that is: below WORTH_THREADS, and in a thread that is to work alone (see
            `single_threaded`), no other thread is used.
        *arguments: The loop's further ones.
    """
    shared = elements >= WORTH_THREADS and not getattr(_THREAD, "alone", False)
    count = min(torch.get_num_threads(), rows) if shared else 1
    # In parts, because a thread may be slower than its neighbor: torch's own threads spin for a while after an op.
    parts = min(rows, count * min(PARTS, max(elements // WORTH_THREADS, 1))) if count > 1 else 1
    left = list(pairwise([rows * i // parts for i in range(parts + 1)]))

    def work() -> None:
        while left:
            try:
                part = left.pop()
            except IndexError:  # another thread took the last
                return
            loop(*part, *arguments)

    # a pool for each process: threads do not survive a fork
    others = [_thread_pool(os.getpid(), count - 1).submit(work) for _ in range(count - 1)]
    work()
    for other in others:
        if not other.cancel():
            other.result()
