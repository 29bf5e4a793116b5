"""A process that hangs ends, and tells where."""

import subprocess
import sys
import threading

import pytest
from support.command import ROOT

import cluster.watchdog
from cluster.watchdog import EXIT_HUNG, Watchdog

pytestmark = pytest.mark.slow

HANGS = """
import re, sys, time
import cluster.watchdog
from cluster.watchdog import Watchdog
cluster.watchdog.GRACE_S = 0.5
with Watchdog(0.5, lambda stacks: print(stacks, flush=True)) as dog:
    def stuck_here():
        {how}
    stuck_here()
"""


def hangs(how: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", HANGS.format(how=how)], cwd=ROOT, capture_output=True, text=True, timeout=900
    )


@pytest.mark.parametrize("how", ["time.sleep(1000)", "while True: pass"])
def test_a_hung_process_ends_with_its_stack(how):
    done = hangs(how)
    assert done.returncode == EXIT_HUNG
    assert "stuck_here" in done.stdout


def test_even_one_that_lets_no_other_thread_run():
    """A regular expression of exponential time holds the interpreter's lock."""
    done = hangs("re.match('(a+)+$', 'a' * 60 + 'b')")
    assert done.returncode != 0
    assert "stuck_here" in done.stderr


def test_progress_keeps_it_alive(monkeypatch):
    """By a clock of its own: a busy machine may keep a process for any time."""
    told, now = [], [0.5]
    monkeypatch.setattr(cluster.watchdog.time, "monotonic", lambda: now[0])
    with Watchdog(0.4, told.append) as dog:
        for _ in range(8):
            now[0] += 0.3
            threading.Event().wait(0.15)  # in which it looks
            dog.feed()
    assert not told


ENDS = """
import time
import cluster.watchdog
from cluster.watchdog import Watchdog
cluster.watchdog.GRACE_S = 0
with Watchdog(2, print):
    pass
time.sleep(3)
"""


def test_nothing_is_left_behind():
    """After the block no timer ends the process."""
    subprocess.run([sys.executable, "-c", ENDS], cwd=ROOT, check=True)
