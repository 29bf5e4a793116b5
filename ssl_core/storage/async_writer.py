"""Writing behind the training's back: in a thread of its own, again while a storage fails."""

import errno
import threading
from collections.abc import Callable

from ssl_core.errors import DiskFull, StorageError
from ssl_core.storage.retry import RetryDeadline

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0  # seconds before another attempt; they double
DISK_FULL_ERRORS = {errno.ENOSPC, errno.EDQUOT}


class AsyncWriter:
    """Writes one thing after the other, in the order in which they were put. Use as a context manager: its end waits
    until all is written.

    `on_retry` is told, once for each row of failures, that a storage fails and writing is tried again.
    """

    def __init__(self, on_retry: Callable[[str], object] = lambda message: None):
        self.on_retry = on_retry
        self.waiting: dict[str, Callable[[], object]] = {}
        self.changed = threading.Condition()
        self.ending = False
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._work, daemon=True, name="writes behind")

    def put(self, name: str, write: Callable[[], object], after: bool = False) -> None:
        """Has `write()` called soon, in place of what still waits under `name`: at its place, or, as a thing that
        relies on others put before it, `after` all that waits.

        Raises what ended an earlier call: DiskFull at once, StorageError when a storage failed for too long.
        """
        with self.changed:
            if self.error:
                raise self.error
            if after:
                self.waiting.pop(name, None)
            self.waiting[name] = write
            self.changed.notify_all()

    def flush(self) -> None:
        """Returns when all is written. Raises as `put` does."""
        with self.changed:
            self.changed.wait_for(lambda: self.error or not self.waiting)
            if self.error:
                raise self.error

    def __enter__(self) -> "AsyncWriter":
        self.thread.start()
        return self

    def __exit__(self, kind, *_) -> None:
        with self.changed:
            self.ending = True
            self.changed.notify_all()
        self.thread.join()
        if self.error and kind is None:
            raise self.error

    def _work(self) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.waiting or self.ending)
                if not self.waiting:
                    return
                name, write = next(iter(self.waiting.items()))
            try:
                self._retry(write)
            except Exception as error:
                with self.changed:
                    self.error = error
                    self.waiting.clear()
                    self.changed.notify_all()
                return
            with self.changed:
                if self.waiting.get(name) is write:
                    del self.waiting[name]
                self.changed.notify_all()

    def _retry(self, write: Callable[[], object]) -> None:
        """Object stores' own failures come as StorageError, after as many attempts; these are a disk's."""
        deadline, wait = RetryDeadline(), FIRST_WAIT_S
        while True:
            try:
                write()
                return
            except OSError as error:
                if error.errno in DISK_FULL_ERRORS:
                    raise DiskFull(f"no room left: {error}; make room, and the same command continues") from error
                if deadline.over(wait):
                    raise StorageError(f"cannot be written: {error}") from error
                if wait == FIRST_WAIT_S:
                    self.on_retry(f"a storage fails and is tried again while work goes on: {error}")
            deadline.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT_S)
