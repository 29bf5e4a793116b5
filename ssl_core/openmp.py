"""Keeps the threads that torch computes with on a CPU from spinning while other programs want the cores.

torch shares an operation among OpenMP's threads, which wait for each other after each. GNU's OpenMP spins while it
waits, which is fastest on cores that nobody else uses. Beside other programs it is many times slower: a thread that
spins keeps a core from the one that it waits for. GNU's OpenMP sleeps instead, almost at once, as long as it has more
threads than there are cores (https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html), so it is given more while
the cores are contended. No result depends on it: the threads that compute are the same.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from threadpoolctl import ThreadpoolController

PERIOD_S = 0.5  # seconds between two looks
CONTENDED = 0.1  # seconds that threads wait for a core, all together, in each second: from here on they sleep
FREE = 0.05  # below, they may spin again,
FREE_LOOKS = 10  # after so many looks in turn
POLICY = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")  # environment variables that say how threads wait: then nothing is done


def run_delay() -> float:
    """Returns the seconds that this process's living threads have waited for a core, since each of them started.

    Raises:
        OSError: If the system does not say, as without Linux's scheduler statistics.
    """
    waited = int(Path("/proc/self/schedstat").read_text().split()[1])
    for task in Path("/proc/self/task").iterdir():
        if task.name != str(os.getpid()):
            with suppress(OSError):  # a thread that has just ended
                waited += int((task / "schedstat").read_text().split()[1])
    return waited / 1e9


@contextmanager
def sleeping_when_contended(waited: Callable[[], float] = run_delay, period: float = PERIOD_S) -> Iterator[None]:
    """Has OpenMP's threads sleep while they wait for each other, whenever other programs want the cores.

    Nothing is done where torch computes with one thread or without GNU's OpenMP, where the system does not say how long
    threads wait for a core, or where OMP_WAIT_POLICY or GOMP_SPINCOUNT is set.

    Args:
        waited: Returns the seconds that threads have waited for a core until now; raises OSError if that is unknown.
        period: Seconds between two calls of it.
    """
    if torch.get_num_threads() == 1 or any(name in os.environ for name in POLICY) or not _has_gnu_openmp():
        yield
        return
    try:
        waited()
    except OSError:
        yield
        return
    ended = threading.Event()
    monitor = threading.Thread(target=_watch, args=(waited, period, ended), name="watches contention", daemon=True)
    monitor.start()
    try:
        yield
    finally:
        ended.set()
        monitor.join()


def _has_gnu_openmp() -> bool:
    return any(one["prefix"] == "libgomp" for one in ThreadpoolController().info())


def _watch(waited: Callable[[], float], period: float, ended: threading.Event) -> None:
    """Adds threads when cores are contended, and lets them go when they have not been for a while."""
    added: SleepingThreads | None = None
    free, before = 0, waited()
    while not ended.wait(period):
        now = waited()
        share, before = (now - before) / period, now
        free = free + 1 if share < FREE else 0
        if added is None and share > CONTENDED:
            added = SleepingThreads()
        elif added is not None and free >= FREE_LOOKS:
            added.end()
            added = None
    if added is not None:
        added.end()


class SleepingThreads:
    """Holds as many more of OpenMP's threads as there are cores: they belong to a thread that computes nothing."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        started = threading.Event()
        self._leader = threading.Thread(target=self._lead, args=(started,), name="leads sleepers", daemon=True)
        self._leader.start()
        started.wait()

    def _lead(self, started: threading.Event) -> None:
        shared = torch.zeros(1 << 20)
        shared.add_(1)  # sets how many threads this one may have, which the next lines overrule
        ThreadpoolController().select(prefix="libgomp").limit(limits=len(os.sched_getaffinity(0)))
        shared.add_(1)  # starts them
        started.set()
        self._ended.wait()

    def end(self) -> None:
        """Ends the threads."""
        self._ended.set()
        self._leader.join()
