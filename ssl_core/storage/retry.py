"""How long a thread bears what a store does, and who may end that."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from ssl_core.errors import StorageError

SHORT_S, LONG_S = 20.0, 900.0  # seconds of failures that are borne: while somebody looks on, and in training

_brief: ContextVar[bool] = ContextVar("brief", default=False)
_closed: ContextVar[threading.Event] = ContextVar("closed")


@contextmanager
def short_deadline() -> Iterator[None]:
    """In it, this thread bears a store's failures only as long as somebody looks on."""
    token = _brief.set(True)
    try:
        yield
    finally:
        _brief.reset(token)


def cancel_on(closed: threading.Event) -> None:
    """From now on, whatever this thread waits for in a store fails with StorageError as soon as `closed` is set."""
    _closed.set(closed)


def cancel_event() -> threading.Event | None:
    """What `cancel_on` was told in this thread, for threads that work for it."""
    return _closed.get(None)


class RetryDeadline:
    """How long this thread bears failures: some seconds from now or from the last success, unless it is stopped."""

    def __init__(self, brief: bool = False) -> None:
        self.seconds = SHORT_S if brief or _brief.get() else LONG_S
        self.closed = _closed.get(None) or threading.Event()
        self.renew()

    def renew(self) -> None:
        self.until = time.monotonic() + self.seconds

    def over(self, wait: float = 0) -> bool:
        """Whether it will be after `wait` more seconds."""
        return time.monotonic() + wait > self.until

    def sleep(self, seconds: float) -> None:
        """Raises StorageError as soon as nobody wants the answer any more."""
        if self.closed.wait(seconds):
            raise StorageError("given up: nobody wants it any more")
