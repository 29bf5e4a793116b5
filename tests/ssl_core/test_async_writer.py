"""Writing behind the training: in order, the latest of a name, again while a storage fails, and never silently not."""

import errno
import threading

import pytest

import ssl_core.storage.async_writer as behind_module
from jobs.study.warning_log import warn
from ssl_core.errors import DiskFull, StorageError
from ssl_core.storage import retry
from ssl_core.storage.async_writer import AsyncWriter


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr(behind_module, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(behind_module, "LONGEST_WAIT_S", 0.02)


class Storage:
    """Writes down what it is given; fails as often as it is told, or waits until it is let go."""

    def __init__(self):
        self.written, self.failures, self.gate = [], [], threading.Event()
        self.gate.set()
        self.begun = threading.Event()

    def writes(self, what):
        def write():
            self.begun.set()
            self.gate.wait()
            if self.failures:
                raise self.failures.pop(0)
            self.written.append(what)

        return write


def test_training_does_not_wait_and_the_later_one_counts():
    storage = Storage()
    storage.gate.clear()
    with AsyncWriter() as behind:
        behind.put("rows", storage.writes("rows 1"))
        assert storage.begun.wait(60)
        for n in (1, 2, 3):
            behind.put("rows", storage.writes(f"rows {n}"))
            behind.put("checkpoint", storage.writes(f"checkpoint {n}"), after=True)
        assert storage.written == []  # who waited for the storage would still be waiting
        storage.gate.set()
    assert storage.written == ["rows 1", "rows 3", "checkpoint 3"]


def test_a_checkpoint_never_overtakes_the_rows_that_it_relies_on():
    """While one is being written, rows, another, and more rows are put."""
    storage = Storage()
    storage.gate.clear()
    with AsyncWriter() as behind:
        behind.put("checkpoint", storage.writes("checkpoint 1"), after=True)
        assert storage.begun.wait(60)
        behind.put("rows", storage.writes("rows 2"))
        behind.put("checkpoint", storage.writes("checkpoint 2"), after=True)
        behind.put("rows", storage.writes("rows 3"))
        storage.gate.set()
    assert storage.written == ["checkpoint 1", "rows 3", "checkpoint 2"]


def test_a_report_of_trouble_that_fails_too_ends_nothing(tmp_path, monkeypatch):
    """Warnings lie on the same disk."""
    monkeypatch.setattr("builtins.open", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.EIO, "disk trouble")))
    storage = Storage()
    storage.failures = [OSError(errno.EIO, "disk trouble")]
    with AsyncWriter(lambda said: warn(tmp_path, said)) as behind:
        behind.put("a", storage.writes("a"))
    assert storage.written == ["a"]


def test_a_storage_that_fails_for_a_while_is_asked_again():
    storage, told = Storage(), []
    storage.failures = [OSError(errno.EIO, "disk trouble"), TimeoutError("slow"), OSError(errno.ESTALE, "gone")]
    with AsyncWriter(told.append) as behind:
        behind.put("a", storage.writes("a"))
        behind.flush()
        assert storage.written == ["a"]
    assert len(told) == 1 and "disk trouble" in told[0]


def test_a_full_disk_is_told_at_once():
    storage = Storage()
    storage.failures = [OSError(errno.ENOSPC, "No space left on device")]
    with AsyncWriter() as behind:
        behind.put("a", storage.writes("a"))
        with pytest.raises(DiskFull, match="make room"):
            behind.flush()
        with pytest.raises(DiskFull):
            behind.put("b", storage.writes("b"))
        behind.error = None  # told
    assert storage.written == []


def test_a_storage_that_fails_for_too_long_ends_the_training(monkeypatch):
    monkeypatch.setattr(retry, "LONG_S", 0.1)
    storage = Storage()
    storage.failures = [OSError(errno.EIO, "for ever")] * 1000
    with pytest.raises(StorageError, match="for ever"), AsyncWriter() as behind:
        behind.put("a", storage.writes("a"))


def test_an_error_of_ours_is_not_swallowed():
    with pytest.raises(KeyError), AsyncWriter() as behind:
        behind.put("a", lambda: {}["x"])


def test_the_error_of_the_training_itself_is_the_one_that_is_raised():
    storage = Storage()
    storage.failures = [OSError(errno.ENOSPC, "full")]
    with pytest.raises(ZeroDivisionError), AsyncWriter() as behind:
        behind.put("a", storage.writes("a"))
        raise ZeroDivisionError
