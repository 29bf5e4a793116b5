"""What SIGTERM, SIGHUP and Ctrl-C ask for: save first, and then leave."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from cluster.pulse import current

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
SAME = 0.5  # seconds within which a signal that comes again is the same: `timeout` and some launchers send each twice
MESSAGE = b"tilespin: saving, then leaving; Ctrl-C or SIGTERM again ends it at once\n"


@contextmanager
def on_signals() -> Iterator[Callable[[], int]]:
    """In the block, the first of SIGNALS asks the job of this process to leave; yields what tells which one came, or 0.
    Another SIGTERM or Ctrl-C ends the process at once; SIGHUP does not, for a terminal that closes sends several. A
    signal that is ignored, as SIGHUP under nohup, stays so."""
    received, last = 0, 0.0

    def leave(number: int, _) -> None:
        nonlocal received, last
        if received and number != signal.SIGHUP and time.monotonic() - last > SAME:
            os._exit(128 + number)
        if not received:
            received, last = number, time.monotonic()
            current().leave()
            with suppress(OSError):
                os.write(2, MESSAGE)  # not print, whose lock the code that this interrupts may hold

    if threading.current_thread() is not threading.main_thread():
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
