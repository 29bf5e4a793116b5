"""Handles SIGTERM, SIGHUP and Ctrl-C, which ask a job to save first and then stop."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

from cluster.heartbeat import current

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
SAME = 0.5  # seconds within which a signal that comes again is the same: `timeout` and some launchers send each twice
SAVING = b"tilespin: saving, then stopping; Ctrl-C or SIGTERM again stops at once\n"
NOTHING = b"tilespin: stopping; the same command continues where it stopped\n"


_handled = ContextVar("handled", default=True)


@contextmanager
def without_signal_handlers() -> Iterator[None]:
    """Has `on_signals` leave all signals alone in the block, as a program needs that has handlers of its own."""
    token = _handled.set(False)
    try:
        yield
    finally:
        _handled.reset(token)


@contextmanager
def on_signals() -> Iterator[Callable[[], int]]:
    """Has the first of SIGNALS in the block ask this process's job to stop.

    A job that has completed no step, as evaluations never do, has nothing to save: the signal raises SystemExit with
    128 + its number. Another SIGTERM or Ctrl-C ends the process at once; SIGHUP does not, and nothing does that
    follows one, for a terminal that closes sends several. A signal that is ignored, as SIGHUP under nohup, stays so.

    Yields:
        A function that returns the number of the signal that came, or 0.
    """
    received, last = 0, 0.0

    def leave(number: int, _) -> None:
        nonlocal received, last
        if received and signal.SIGHUP not in (received, number) and time.monotonic() - last > SAME:
            os._exit(128 + number)
        if not received:
            received, last = number, time.monotonic()
            heartbeat = current()
            heartbeat.request_stop()
            done = heartbeat.job and heartbeat.step is None
            with suppress(OSError):
                os.write(2, NOTHING if done else SAVING)  # not print, whose lock what this interrupts may hold
            if done:
                sys.exit(128 + number)

    if not _handled.get() or threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    heard = [number for number in SIGNALS if before[number] is not signal.SIG_IGN]
    try:
        for number in heard:
            signal.signal(number, leave)
        yield lambda: received
    finally:
        for number in heard:
            signal.signal(number, before[number])
