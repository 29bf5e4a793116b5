"""Reads ahead of the training step, and measures how long the step waits."""

import threading
import time
from collections.abc import Iterator
from queue import Full, Queue
from typing import Generic, TypeVar

from ssl_core.storage.retry import cancel_on

T = TypeVar("T")
POLL_SECONDS = 0.1


class TimedIterator(Generic[T]):
    """Passes on items and measures how long they are waited for.

    Args:
        items: What to pass on.
    """

    def __init__(self, items: Iterator[T]):
        self.items = items
        self.seconds, self.started = 0.0, time.perf_counter()

    def __iter__(self) -> "TimedIterator[T]":
        return self

    def __next__(self) -> T:
        start = time.perf_counter()
        try:
            return next(self.items)
        finally:
            self.seconds += time.perf_counter() - start

    def waiting_share(self) -> float:
        """Returns the share of the time since the last call, or the start, that was spent waiting, 0 to 1."""
        now = time.perf_counter()
        share = self.seconds / max(now - self.started, 1e-9)
        self.seconds, self.started = 0.0, now
        return min(share, 1.0)


def prefetch(items: Iterator[T], depth: int) -> Iterator[T]:
    """Makes items ahead in a thread, which ends with this iterator.

    Args:
        items: What to make; its errors are raised here, in their turn.
        depth: How many items are made ahead.

    Yields:
        The same items.
    """
    queue: Queue = Queue(depth)
    stopped = threading.Event()

    def put(entry: tuple[T | None, BaseException | None]) -> None:
        while not stopped.is_set():
            try:
                return queue.put(entry, timeout=POLL_SECONDS)
            except Full:
                continue

    def work() -> None:
        cancel_on(stopped)
        try:
            for item in items:
                put((item, None))
                if stopped.is_set():
                    return
        except BaseException as error:
            put((None, error))
        else:
            put((None, StopIteration()))

    thread = threading.Thread(target=work, daemon=True, name="reads ahead")
    thread.start()
    try:
        while True:
            item, error = queue.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item
    finally:
        stopped.set()
        thread.join()
