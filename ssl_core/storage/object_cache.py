"""Objects of a store, kept on this machine's disk up to a limit; the least recently used are removed first."""

import fcntl
import hashlib
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from ssl_core.errors import ObjectNotFound, StorageError, UserError
from ssl_core.storage import cache
from ssl_core.storage.object_store import Object, read
from ssl_core.storage.retry import RetryDeadline

Fill = Callable[[BinaryIO, RetryDeadline], None]
LIMIT_VARIABLE = "TILESPIN_CACHE_GB"
DEFAULT_GB = 50.0
PART_BYTES = 2**21  # bytes of one request: a minute is enough for several of them at once over a slow link
FETCH_POLL_S = 0.005  # seconds between looks at another's fetch: with longer ones, it may have been evicted again
LOCK_POLL_S = 0.05  # seconds between attempts to make room


def cache_limit() -> int:
    """Returns how many bytes the cache may hold, from the environment variable TILESPIN_CACHE_GB.

    Raises:
        UserError: If the variable is no positive number of gigabytes (of 10^9 bytes).
    """
    value = os.environ.get(LIMIT_VARIABLE, str(DEFAULT_GB))
    try:
        if 0 < (found := float(value)) < 1e9:
            return round(found * 1e9)
    except ValueError:
        pass
    raise UserError(f"{LIMIT_VARIABLE} is {value!r}, expected gigabytes above 0")


def open_cached(obj: Object, fill: Fill | None = None) -> io.FileIO:
    """Opens this machine's copy of an object; if there is none, one of all its threads and processes fetches it.

    Args:
        obj: The object; or what stands for a file that is made from one, of at most `obj.size` bytes.
        fill: Writes such a file, and renews the deadline as it goes on; None: the bytes are those of the object.

    Raises:
        ObjectNotFound: If the store has no such object any more.
        StorageError: If the store or the disk of the cache fails, or the object is larger than the cache.
    """
    cached_path, deadline = os.path.join(_cache_root(), _cache_path(obj)), RetryDeadline()
    try:
        while True:
            with suppress(FileNotFoundError):
                file = io.FileIO(cached_path)
                with suppress(PermissionError):  # another user's, in a cache of several
                    os.utime(file.fileno())
                return file
            if file := _fetch(obj, Path(cached_path), deadline, fill):
                return file
    except ObjectNotFound:
        raise
    except OSError as error:
        raise StorageError(f"{obj.url} cannot be kept in {_cache_root()}: {error}") from error


def read_cached(obj: Object) -> bytes:
    """Returns all bytes of an object through the cache; raises what `open_cached` raises."""
    with open_cached(obj) as file:
        return file.read()


@lru_cache(maxsize=2**12)
def _cache_path(obj: Object) -> str:
    named = f"{obj.url}\0{obj.size}\0{obj.stamp}".encode(errors="surrogateescape")
    key = hashlib.sha256(named).hexdigest()
    return f"{key[:2]}/{key[2:]}"  # no folder becomes too large


def _cache_root() -> Path:
    return cache.folder() / "remote"


def _fetch(obj: Object, cached_path: Path, deadline: RetryDeadline, fill: Fill | None) -> io.FileIO | None:
    """Puts the object at `cached_path` and returns it; None if another has done so, or has failed, meanwhile."""
    part = cached_path.with_suffix(".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(part, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
        _wait_for(file.fileno(), obj, deadline)
        if not _is_open_at(part, file.fileno()):
            return None
        try:
            if cached_path.exists():
                part.unlink()
                return None
            if deadline.over():
                raise StorageError(f"{obj.url}: others have failed to fetch it for {deadline.seconds:g} s")
            _reserve(file.fileno(), obj, deadline)
            fill(file, deadline) if fill else _fill(file, obj, deadline)
            file.flush()
            os.fsync(file.fileno())
            with _locked_usage():  # nobody counts meanwhile, and misses it
                os.replace(part, cached_path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        fcntl.flock(file, fcntl.LOCK_UN)
        file.seek(0)
        return io.FileIO(os.dup(file.fileno()))


def _wait_for(part: int, obj: Object, deadline: RetryDeadline) -> None:
    """Takes the lock that a fetch holds. Raises StorageError if another fetch makes no progress for too long."""
    most = os.fstat(part).st_blocks
    while True:
        with suppress(BlockingIOError):
            return fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if (blocks := os.fstat(part).st_blocks) > most:
            most = blocks
            deadline.renew()
        if deadline.over():
            raise StorageError(f"{obj.url}: another process has not got on with it for {deadline.seconds:g} s")
        deadline.sleep(FETCH_POLL_S)


def _is_open_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _fill(file: BinaryIO, obj: Object, deadline: RetryDeadline) -> None:
    for _ in range(2):  # what was damaged on its way comes whole the second time
        total = hashlib.sha256()
        file.seek(0)
        for start in range(0, obj.size, PART_BYTES):
            data = read(obj, start, min(start + PART_BYTES, obj.size), deadline)
            deadline.renew()
            total.update(data)
            file.write(data)
        if obj.sha256 in ("", total.hexdigest()):
            break
    else:
        raise StorageError(f"{obj.url} has other bytes than its index says: upload it again")


def _reserve(descriptor: int, obj: Object, deadline: RetryDeadline) -> None:
    """Makes room, then the file as long as the object. Raises StorageError if the cache is too small for it."""
    most = cache_limit()
    if obj.size > most:
        raise StorageError(f"{obj.url} has {obj.size:,} bytes, more than {LIMIT_VARIABLE} allows")
    while True:
        with _locked_usage() as count:
            used = count[0] + obj.size
            if used > most:
                used = _evict(most - obj.size) + obj.size
            if fits := used <= most:
                os.ftruncate(descriptor, obj.size)
                count[0] = used
        if fits:
            return
        deadline.sleep(LOCK_POLL_S)


@contextmanager
def _locked_usage() -> Iterator[list[int]]:
    """Holds the cache's lock; yields a list of one, an upper bound of the used bytes, whose final value is kept."""
    with open(os.open(_cache_root() / "used", os.O_RDWR | os.O_CREAT, 0o644), "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        value = file.read()
        count = [int(value) if value.isdigit() else cache_limit()]
        yield count
        file.seek(0)
        file.truncate()
        file.write(str(count[0]))


def _evict(most: int) -> int:
    """Removes torn files, and the least recently used ones down to `most` bytes; returns the bytes that are left."""
    used = 0
    found: list[tuple[int, int, str]] = []  # time of the last use in ns, bytes, path
    for folder in (entry for entry in os.scandir(_cache_root()) if entry.is_dir()):
        for entry in os.scandir(folder.path):
            with suppress(FileNotFoundError):  # one that has just failed
                state = entry.stat()
                if not entry.name.endswith(".part"):
                    found.append((state.st_mtime_ns, state.st_size, entry.path))
                elif not _remove_if_torn(entry.path):
                    used += state.st_size
    used = used + sum(size for _, size, _ in found)
    oldest = len(found) // 16  # of many small files, so that not every fetch comes to look through all of them
    for number, (_, size, path) in enumerate(sorted(found) if used > most else ()):
        if used <= most and number >= oldest:
            break
        os.unlink(path)
        used -= size
    return used


def _remove_if_torn(part: str) -> bool:
    """Removes the file of a fetch unless that is still going on; returns whether it did."""
    with open(part, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        os.unlink(part)
        return True
