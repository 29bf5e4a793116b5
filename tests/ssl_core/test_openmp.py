"""OpenMP's threads that sleep beside other programs: when they are added and let go, and what stays as it was."""

import os
import subprocess
import sys
import threading
import time

import pytest
import torch

from ssl_core.openmp import FREE_LOOKS, sleeping_when_contended


@pytest.fixture(autouse=True)
def two_threads(monkeypatch):
    """As on a machine of two cores whose user has said nothing."""
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.zeros(1 << 20).add_(1)
    yield
    torch.set_num_threads(before)


def leaders() -> int:
    return sum(thread.name == "leads sleepers" for thread in threading.enumerate())


def until(condition, seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def os_threads() -> int:
    return len(os.listdir("/proc/self/task"))


class Readings:
    """Seconds of waiting as a test has them: `rate` of each look's period."""

    def __init__(self, period: float):
        self.period, self.rate, self.total, self.looks = period, 0.0, 0.0, 0

    def __call__(self) -> float:
        self.total += self.rate * self.period
        self.looks += 1
        return self.total


def test_threads_are_added_while_cores_are_contended():
    readings = Readings(0.02)
    idle = os_threads()
    with sleeping_when_contended(readings, readings.period):
        assert until(lambda: readings.looks > 5) and not leaders()
        readings.rate = 1.5
        assert until(lambda: leaders() == 1)
        # the watcher, the leader and its team: one thread for each core, itself included
        assert until(lambda: os_threads() == idle + 1 + len(os.sched_getaffinity(0)))
        readings.rate, looks = 0.0, readings.looks
        assert until(lambda: not leaders())
        assert readings.looks >= looks + FREE_LOOKS - 1
        readings.rate = 1.5
        assert until(lambda: leaders() == 1)
    assert not leaders() and until(lambda: os_threads() == idle)
    assert torch.get_num_threads() == 2


def test_results_are_the_same_bits():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(16, 8, 32, 32, generator=generator)
    weights = torch.randn(16, 8, 3, 3, generator=generator)

    def gradients() -> torch.Tensor:
        free = weights.clone().requires_grad_()
        torch.nn.functional.conv2d(images, free).square().mean().backward()
        return free.grad

    alone, readings = gradients(), Readings(0.02)
    readings.rate = 1.5
    with sleeping_when_contended(readings, readings.period):
        assert until(lambda: leaders() == 1)
        assert torch.equal(gradients(), alone)


def unknown() -> float:
    raise FileNotFoundError("/proc/self/schedstat")


@pytest.mark.parametrize("why", ["one thread", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "unknown"])
def test_where_nothing_can_be_won_nothing_is_done(monkeypatch, why):
    if why == "one thread":
        torch.set_num_threads(1)
    elif why != "unknown":
        monkeypatch.setenv(why, "passive" if why == "OMP_WAIT_POLICY" else "1000")
    threads, readings = threading.active_count(), Readings(0.02)
    with sleeping_when_contended(unknown if why == "unknown" else readings, 0.02):
        assert threading.active_count() == threads
    assert not readings.looks


COMPETING = """
import os, threading, time
from ssl_core.openmp import run_delay

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
before, ended = run_delay(), threading.Event()

def hash_until_the_end():
    import hashlib
    block = bytes(1 << 20)
    while not ended.is_set():
        hashlib.sha256(block)  # without the interpreter's lock

threads = [threading.Thread(target=hash_until_the_end) for _ in range(2)]
for thread in threads:
    thread.start()
while run_delay() - before < 0.2:  # two threads, one core: each waits for the other
    time.sleep(0.05)
ended.set()
print("waited")
"""


@pytest.mark.slow
def test_threads_that_want_the_same_core_wait_for_it():
    done = subprocess.run([sys.executable, "-c", COMPETING], capture_output=True, text=True, timeout=120)
    assert done.stdout == "waited\n", done.stderr
