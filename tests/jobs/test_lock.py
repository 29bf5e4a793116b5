"""One driver for each study: on a disk by the system's lock, in an object store by heartbeats."""

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time

import pytest
from support.command import ROOT

import jobs.study.lock as lock
import ssl_core.storage.files as files
from benchmarks.harness.processes import wait_for
from ssl_core.errors import UserError


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    for name, seconds in (("BEAT_S", 0.1), ("STALE_S", 1.0), ("QUIET_S", 0.1), ("POLL_S", 0.05)):
        monkeypatch.setattr(lock, name, seconds)


@pytest.fixture(params=["disk", "store"])
def root(request, tmp_path):
    return tmp_path if request.param == "disk" else files.open_path(f"memory://lock-{secrets.token_hex(4)}/study")


def owned_by(root, **changes) -> None:
    """Leaves behind what an owner elsewhere would."""
    owner = {"host": "elsewhere", "kernel": "another", "pid": 12, "key": "theirs", "beat": 3} | changes
    files.write_bytes(root / "driver.json", json.dumps(owner).encode())


def test_is_free_again_afterwards(root):
    for _ in range(2):
        with lock.study_lock(root):
            assert (root / "driver.json").exists()
        assert not (root / "driver.json").exists()


def test_a_second_driver_is_told_who_works_there(root, monkeypatch):
    """Elsewhere, seen by its heartbeat alone."""
    monkeypatch.setattr(lock, "STALE_S", 120.0)
    owned_by(root)
    ended = threading.Event()

    def beats():
        n = 0
        while not ended.wait(0.1):
            owned_by(root, beat=(n := n + 1))

    thread = threading.Thread(target=beats)
    thread.start()
    try:
        with pytest.raises(UserError, match="process 12 on elsewhere"), lock.study_lock(root):
            pass
    finally:
        ended.set()
        thread.join()


@pytest.mark.slow
def test_what_the_dead_left_is_taken_over(root):
    """On another machine only time tells, and not a moment sooner than it may."""
    owned_by(root)
    started = time.monotonic()
    with lock.study_lock(root):
        assert time.monotonic() - started >= lock.STALE_S
        assert json.loads(files.read_bytes(root / "driver.json"))["pid"] == os.getpid()


def test_nobody_waits_for_a_process_of_this_machine_that_is_gone(root, monkeypatch):
    monkeypatch.setattr(lock, "STALE_S", 120.0)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with_us = {"host": lock.socket.gethostname(), "kernel": lock._kernel_id(), "pid": gone.pid}
    owned_by(root, **with_us)
    started = time.monotonic()
    with lock.study_lock(root):
        assert time.monotonic() - started < lock.STALE_S


def test_heartbeats_go_on_while_it_is_held(root):
    with lock.study_lock(root):
        first = files.read_bytes(root / "driver.json")
        wait_for(lambda: files.read_bytes(root / "driver.json") != first, 120, "a heartbeat")


@pytest.mark.slow
def test_of_two_that_find_a_dead_owner_one_gets_it(monkeypatch):
    monkeypatch.setattr(lock, "STALE_S", 3.0)
    root = files.open_path(f"memory://lock-{secrets.token_hex(4)}/study")
    owned_by(root)
    held, refused, together = [], [], threading.Barrier(4)

    def take():
        together.wait()
        try:
            with lock._lock_by_heartbeat(root / "driver.json", exclusive=False):
                held.append(1)
                wait_for(lambda: len(refused) == 3, 120, "the others to be refused")
        except UserError:
            refused.append(1)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 1 and len(refused) == 3


TAKEN = """
import signal, sys, time
import jobs.study.lock as lock, ssl_core.storage.files as files
lock.BEAT_S = 0.1
from pathlib import Path
signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))
with lock.study_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(1000)
"""


def test_who_was_taken_for_dead_leaves(tmp_path):
    """Stopped for longer than others wait, then continued: it finds another's key, and goes."""
    driver = subprocess.Popen(
        [sys.executable, "-c", TAKEN, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert driver.stdout.readline() == "held\n"
        driver.send_signal(signal.SIGSTOP)
        owned_by(tmp_path)
        driver.send_signal(signal.SIGCONT)
        _, said = driver.communicate(timeout=900)
    finally:
        driver.kill()
    assert driver.returncode == 9 and "taken over by process 12 on elsewhere" in said
    assert json.loads((tmp_path / "driver.json").read_text())["key"] == "theirs", "it was not ours to remove"
