"""What SIGTERM means: somebody wants this machine back, so save first and then leave."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cluster.pulse import current


@contextmanager
def on_sigterm() -> Iterator[Callable[[], bool]]:
    """In the block, the first SIGTERM tells the job of this process to leave; yields whether it came. A second one
    ends the process as it would have without the block."""
    told = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield told.is_set
        return

    def leave(*_) -> None:
        told.set()
        current().leave()
        signal.signal(signal.SIGTERM, before)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield told.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
