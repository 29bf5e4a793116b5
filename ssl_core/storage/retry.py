"""How long a thread bears what a store does, and who may end that."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from ssl_core.errors import StoreFailed

BRIEFLY, LONG = 20.0, 900.0  # seconds of failures that are borne: while somebody looks on, and in training

_brief: ContextVar[bool] = ContextVar("brief", default=False)
_closed: ContextVar[threading.Event] = ContextVar("closed")


@contextmanager
def briefly() -> Iterator[None]:
    """In it, this thread bears a store's failures only as long as somebody looks on."""
    token = _brief.set(True)
    try:
        yield
    finally:
        _brief.reset(token)


def until_closed(closed: threading.Event) -> None:
    """From now on, whatever this thread waits for in a store fails with StoreFailed as soon as `closed` is set."""
    _closed.set(closed)


def closing() -> threading.Event | None:
    """What `until_closed` was told in this thread, for threads that work for it."""
    return _closed.get(None)


class Patience:
    """How long this thread bears failures: some seconds from now or from the last success, unless it is stopped."""

    def __init__(self, brief: bool = False) -> None:
        self.seconds = BRIEFLY if brief or _brief.get() else LONG
        self.closed = _closed.get(None) or threading.Event()
        self.renew()

    def renew(self) -> None:
        self.until = time.monotonic() + self.seconds

    def over(self, wait: float = 0) -> bool:
        """Whether it will be after `wait` more seconds."""
        return time.monotonic() + wait > self.until

    def sleep(self, seconds: float) -> None:
        """Raises StoreFailed as soon as nobody wants the answer any more."""
        if self.closed.wait(seconds):
            raise StoreFailed("given up: nobody wants it any more")
