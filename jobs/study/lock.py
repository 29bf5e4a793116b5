"""Allows one driver for each study, wherever it is stored: by a heartbeat, and on a disk by the system's lock too."""

import contextlib
import fcntl
import json
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import ssl_core.storage.files as files
from ssl_core.errors import ObjectNotFound, StorageError, UserError
from ssl_core.storage.retry import short_deadline

BEAT_S = 10.0  # seconds between heartbeats
STALE_S = 45.0  # seconds without one until their owner is taken for dead; by the watch of who wants the lock
QUIET_S = 2.0  # seconds until a take-over is looked at again: two may have seen the same dead owner
POLL_S = 1.0


@contextmanager
def study_lock(root: Path) -> Iterator[None]:
    """Keeps other drivers out of a study's folder while the block runs.

    If another driver takes over, since this process was stopped for longer than STALE_S, this process gets SIGTERM.

    Args:
        root: The study's folder.

    Raises:
        UserError: If another driver works there, or the folder cannot be written.
    """
    with _lock_by_system(root) as exclusive, _lock_by_heartbeat(root / "driver.json", exclusive):
        yield


@contextmanager
def _lock_by_system(root: Path) -> Iterator[bool]:
    """Locks the folder by the system's lock, which ends with its owner.

    It yields whether it is certain that nobody else of this kernel, or of a disk with locks, works there.
    """
    if not files.is_local(root):
        yield False
        return
    with _open_lock_file(root) as file:
        try:
            # not flock: a process that is started here would inherit that, and hold it when this one is killed
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise _locked_error(root, f"process {file.read() or 'unknown'}") from None
        except OSError:  # a file system without locks: the heartbeat has to do
            yield False
            return
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield True


def _open_lock_file(root: Path) -> IO[str]:
    try:
        root.mkdir(parents=True, exist_ok=True)
        return open(root / ".driver", "a+")
    except OSError as error:
        raise UserError(f"{root} cannot be written: {error}") from error


@contextmanager
def _lock_by_heartbeat(path: Path, exclusive: bool) -> Iterator[None]:
    mine = {"host": socket.gethostname(), "kernel": _kernel_id(), "pid": os.getpid(), "key": secrets.token_hex(8)}
    try:
        if not files.create(path, _owner_as_json(mine, 0)):
            _take_over(path, mine, exclusive)
    except (OSError, StorageError) as error:
        raise UserError(f"{path.parent} cannot be written: {error}") from error
    ended = threading.Event()
    beats = threading.Thread(target=_write_heartbeats, args=(path, mine, ended), daemon=True, name="heartbeat")
    beats.start()
    try:
        yield
    finally:
        ended.set()
        beats.join(BEAT_S)
        with contextlib.suppress(OSError, StorageError), short_deadline():
            if _read_owner(path).get("key") == mine["key"]:
                files.remove(path)


def _take_over(path: Path, mine: dict, exclusive: bool) -> None:
    """Waits until it is certain that the owner is dead. Raises UserError as soon as it shows a sign of life."""
    first = _read_owner(path)
    whose = f"process {first.get('pid', 'unknown')} on {first.get('host', 'unknown')}"
    if not _is_certainly_dead(first, mine, exclusive):
        print(f"{path.parent} was left by {whose}; waiting {STALE_S:.0f} s for a sign of life", file=sys.stderr)
        until = time.monotonic() + STALE_S
        while (seen := _read_owner(path)) and time.monotonic() < until:
            if seen != first:
                raise _locked_error(path.parent, whose)
            time.sleep(POLL_S)
    files.write_bytes(path, _owner_as_json(mine, 0))
    if not exclusive:
        time.sleep(QUIET_S)
    if _read_owner(path).get("key") != mine["key"]:
        raise _locked_error(path.parent, "another process")


def _is_certainly_dead(owner: dict, mine: dict, exclusive: bool) -> bool:
    """Returns whether the owner ran on this kernel and is no more: this process holds its lock, or there is no such
    process."""
    if not owner or owner.get("kernel") != mine["kernel"]:
        return not owner
    if exclusive:
        return True
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return owner["host"] == mine["host"]  # a container's processes have other numbers here
    except OSError:
        pass
    return False


def _write_heartbeats(path: Path, mine: dict, ended: threading.Event) -> None:
    number = 0
    while not ended.wait(BEAT_S):
        number += 1
        try:
            with short_deadline():
                owner = _read_owner(path)
            if owner and owner.get("key") != mine["key"]:
                print(
                    f"{path.parent} was taken over by process {owner.get('pid')} on {owner.get('host')}; "
                    "this process stops",
                    file=sys.stderr,
                )
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
                return
            with short_deadline():
                files.write_bytes(path, _owner_as_json(mine, number))
        except (OSError, StorageError):  # a storage that fails for a while; others find no heartbeat either
            continue


def _read_owner(path: Path) -> dict:
    try:
        return json.loads(files.read_bytes(path))
    except (FileNotFoundError, ObjectNotFound, ValueError):
        return {}


def _owner_as_json(mine: dict, beat: int) -> bytes:
    return json.dumps({**mine, "beat": beat}).encode()


def _locked_error(root: Path, whose: str) -> UserError:
    return UserError(f"{root} is being worked on by {whose}: wait for it, or work in another folder")


def _kernel_id() -> str:
    """Returns what tells one running kernel from every other, whatever it or its containers are called."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()
