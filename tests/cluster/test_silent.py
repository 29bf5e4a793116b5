"""Processes that give no sign of life, on a real Ray: who is stopped is found, who only takes long is left alone."""

import ctypes
import os
import signal
import threading
from pathlib import Path

import pytest

import cluster.scheduler
from benchmarks.harness.processes import wait_for
from cluster.job import Job
from cluster.scheduler import run_on_ray
from cluster.session import session
from cluster.silent import SilentProcesses

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def ray_session():
    with session(cpus=2):
        yield


class Stops:
    """Stops the process that first unpickles it, as one would be stopped that imports what its work needs."""

    def __init__(self, marker: str):
        self.marker = marker

    def __reduce__(self):
        return stop_once, (self.marker,)


def stop_once(marker: str) -> int:
    if not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGSTOP)
    return 7


def same(value: int) -> int:
    return value


def hold(pipe: str) -> int:
    """Keeps the interpreter's lock, as a slow import may, until something comes out of `pipe`."""
    end = os.open(pipe, os.O_RDONLY)
    return ctypes.PyDLL(None).read(end, ctypes.create_string_buffer(1), 1)


def test_who_is_stopped_before_its_work_begins_is_found(ray_session, tmp_path, monkeypatch):
    monkeypatch.setattr("cluster.silent.SILENT_S", 2.0)
    again, outcome = run_on_ray([Job("one", same, (Stops(str(tmp_path / "stopped")),))])
    assert again.fault.kind == "system" and "no sign of life" in again.fault.cause
    assert outcome.value == 7


def test_who_holds_the_interpreters_lock_is_left_alone(ray_session, tmp_path, monkeypatch):
    """However long: neither is it killed, nor its work given to another."""
    looking, told, look = [], [], SilentProcesses.check

    def spied(self, *silence) -> None:
        looking.append(self)
        look(self, *silence)

    monkeypatch.setattr(SilentProcesses, "check", spied)
    monkeypatch.setattr("cluster.silent.SILENT_S", 2.0)
    os.mkfifo(pipe := tmp_path / "pipe")
    end = os.open(pipe, os.O_RDWR)  # or whoever opens it to read would wait, and not in `read`
    job = Job("one", hold, (str(pipe),))
    queue = threading.Thread(target=lambda: told.extend(run_on_ray([job])), daemon=True)
    queue.start()
    wait_for(lambda: looking and looking[0].alive_at, 120, "a look at the silent process")
    monkeypatch.setattr(cluster.scheduler, "ABANDON_S", 0.0)
    looks = len(looking)
    wait_for(lambda: len(looking) > looks + 2, 120, "more looks")
    os.write(end, b"x")
    queue.join(120)
    assert [(type(one).__name__, one.value) for one in told] == [("Outcome", 1)]
