"""Writing in the background of training: in a thread of its own, tried again while a storage fails."""

import errno
import threading
from collections.abc import Callable

from ssl_core.errors import DiskFull, StorageError
from ssl_core.storage.retry import RetryDeadline

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0  # seconds before another attempt; they double
DISK_FULL_ERRORS = {errno.ENOSPC, errno.EDQUOT}


class AsyncWriter:
    """Writes files one after the other in a thread of its own, in the order in which they were put.

    It is a context manager, whose end waits until all is written and raises what ended a write.

    Args:
        on_retry: Called with a message, once for each write that fails and is tried again.
    """

    def __init__(self, on_retry: Callable[[str], object] = lambda message: None):
        self.on_retry = on_retry
        self.waiting: dict[str, Callable[[], object]] = {}
        self.changed = threading.Condition()
        self.ending = False
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._work, daemon=True, name="writes behind")

    def put(self, name: str, write: Callable[[], object], after: bool = False) -> None:
        """Has `write` called soon by the thread, in place of an earlier write that still waits under the same name.

        Args:
            name: Tells writes apart; at most one of a name waits.
            write: Writes one file, whole; it may be called several times.
            after: Whether it goes behind all that waits, because it relies on that; else it takes the place of the
                earlier one of its name.

        Raises:
            DiskFull: If an earlier write found no room.
            StorageError: If an earlier write failed for longer than is waited for.
        """
        with self.changed:
            if self.error:
                raise self.error
            if after:
                self.waiting.pop(name, None)
            self.waiting[name] = write
            self.changed.notify_all()

    def flush(self) -> None:
        """Waits until all is written.

        Raises:
            DiskFull: If a write found no room.
            StorageError: If a write failed for longer than is waited for.
        """
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
        """Calls `write` until it succeeds. Object stores repeat by themselves, so that failures here are a disk's."""
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
