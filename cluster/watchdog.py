"""Ends a process that makes no progress, and leaves its stack behind."""

import faulthandler
import os
import threading
import time
from collections.abc import Callable
from tempfile import TemporaryFile

EXIT_HUNG = 70  # exit code of a process that the watchdog ended
STDERR = 2
GRACE_S = 30.0  # seconds that the watchdog itself may be late


class Watchdog:
    """Ends the process if it makes no progress for too long. Used as a context manager.

    If a thread holds the interpreter's lock for ever, a timer outside it ends the process a little later, with the
    stacks on stderr.

    Args:
        seconds: The longest time between two calls of `feed`.
        on_hang: Is called with the stacks of all threads before the process ends.
        first_seconds: The longest time until the first call of `feed`, if that is more: compiling or downloading at
            the beginning takes longer.
    """

    def __init__(self, seconds: float, on_hang: Callable[[str], object], first_seconds: float = 0):
        self.seconds, self.on_hang = seconds, on_hang
        self.deadline = time.monotonic() + max(seconds, first_seconds)
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True, name="watchdog")

    def feed(self) -> None:
        """Notes progress: the time begins anew."""
        self.deadline = time.monotonic() + self.seconds

    def __enter__(self) -> "Watchdog":
        self._set_timer()
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.ended.set()
        self.thread.join()
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        pause = min(1.0, self.seconds / 4)
        while not self.ended.wait(pause):
            if self._set_timer() <= 0:
                try:
                    self.on_hang(_stacks())
                finally:
                    os._exit(EXIT_HUNG)

    def _set_timer(self) -> float:
        """Sets the timer outside the interpreter's lock anew; returns the seconds left until the process counts as
        hung."""
        remaining = self.deadline - time.monotonic()
        # to the process's own stderr: sys.stderr may be a notebook's, which is no file
        faulthandler.dump_traceback_later(max(remaining, 0) + GRACE_S, exit=True, file=STDERR)
        return remaining


def _stacks() -> str:
    """Returns the stacks of all threads of this process."""
    with TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read()
