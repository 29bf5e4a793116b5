"""How long a thread tries again while a store fails, and what ends that early."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from ssl_core.errors import StorageError

SHORT_S, LONG_S = 20.0, 900.0  # seconds of failures until giving up: while a person waits, and in training

_brief: ContextVar[bool] = ContextVar("brief", default=False)
_closed: ContextVar[threading.Event] = ContextVar("closed")


@contextmanager
def short_deadline() -> Iterator[None]:
    """Gives up on a failing store after SHORT_S seconds in this block and thread, since a person waits for it."""
    token = _brief.set(True)
    try:
        yield
    finally:
        _brief.reset(token)


def cancel_on(closed: threading.Event) -> None:
    """Makes whatever this thread waits for in a store fail with StorageError as soon as `closed` is set."""
    _closed.set(closed)


def cancel_event() -> threading.Event | None:
    """Returns the event that `cancel_on` set for this thread, or None, for other threads that work for it."""
    return _closed.get(None)


class RetryDeadline:
    """Limits how long this thread tries again: some seconds from now or from the last success.

    Args:
        brief: Whether a person waits, as in `short_deadline`: SHORT_S seconds instead of LONG_S.
    """

    def __init__(self, brief: bool = False) -> None:
        self.seconds = SHORT_S if brief or _brief.get() else LONG_S
        self.closed = _closed.get(None) or threading.Event()
        self.renew()

    def renew(self) -> None:
        """Starts the time again, after a success."""
        self.until = time.monotonic() + self.seconds

    def over(self, wait: float = 0) -> bool:
        """Returns whether the time will be over after `wait` more seconds."""
        return time.monotonic() + wait > self.until

    def sleep(self, seconds: float) -> None:
        """Sleeps, or ends early because the answer is no longer wanted.

        Raises:
            StorageError: As soon as the event of `cancel_on` is set.
        """
        if self.closed.wait(seconds):
            raise StorageError("given up: nobody wants it any more")
