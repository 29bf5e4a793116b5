"""Objects of a store, kept on this machine's disk up to a limit; whatever was not used for longest goes first."""

import fcntl
import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from ssl_core.errors import BadInput, Gone, StoreFailed
from ssl_core.storage import cache
from ssl_core.storage.object_store import Object, read
from ssl_core.storage.retry import Patience

LIMIT = "TILESPIN_CACHE_GB"


DEFAULT_GB = 50.0


PART = 2**21  # bytes that are asked for at a time: a minute is enough for some of them at once over a slow link


SOON = 0.005  # seconds until who waits for a fetch looks again: later, it may have been evicted


WAIT = 0.05  # seconds until it is looked again for room


def limit() -> int:
    """Bytes that the cache may hold. Raises BadInput if the environment says nonsense."""
    told = os.environ.get(LIMIT, str(DEFAULT_GB))
    try:
        if 0 < (found := float(told)) < 1e9:
            return round(found * 1e9)
    except ValueError:
        pass
    raise BadInput(f"{LIMIT} is {told!r}, expected gigabytes above 0")


def opened(thing: Object) -> io.FileIO:
    """A copy on this machine, fetched by one of all its threads and processes if it is not there yet.

    Raises Gone if the store has no such object any more, or StoreFailed, also where the disk is at fault.
    """
    place, patience = os.path.join(_root(), _key(thing)), Patience()
    try:
        while True:
            with suppress(FileNotFoundError):
                file = io.FileIO(place)
                with suppress(PermissionError):  # another user's, in a cache of several
                    os.utime(file.fileno())
                return file
            if file := _fetched(thing, Path(place), patience):
                return file
    except Gone:
        raise
    except OSError as error:
        raise StoreFailed(f"{thing.url} cannot be kept in {_root()}: {error}") from error


def content(thing: Object) -> bytes:
    """All bytes of what `opened` opens."""
    with opened(thing) as file:
        return file.read()


@lru_cache(maxsize=2**12)
def _key(thing: Object) -> str:
    named = f"{thing.url}\0{thing.size}\0{thing.stamp}".encode(errors="surrogateescape")
    key = hashlib.sha256(named).hexdigest()
    return f"{key[:2]}/{key[2:]}"  # no folder becomes too large


def _root() -> Path:
    return cache.folder() / "remote"


def _fetched(thing: Object, place: Path, patience: Patience) -> io.FileIO | None:
    """The object, put at `place`; None if another has done so, or has failed, in the meantime."""
    part = place.with_suffix(".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(part, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
        _wait_for(file.fileno(), thing, patience)
        if not _lies_at(part, file.fileno()):
            return None
        try:
            if place.exists():
                part.unlink()
                return None
            if patience.over():
                raise StoreFailed(f"{thing.url}: others have failed to fetch it for {patience.seconds:g} s")
            _reserve(file.fileno(), thing, patience)
            _fill(file, thing, patience)
            with _counted():  # nobody counts meanwhile, and misses it
                os.replace(part, place)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        fcntl.flock(file, fcntl.LOCK_UN)
        file.seek(0)
        return io.FileIO(os.dup(file.fileno()))


def _wait_for(part: int, thing: Object, patience: Patience) -> None:
    """Takes the lock that is held by who fetches. Raises StoreFailed if that one does not get on for too long."""
    most = os.fstat(part).st_blocks
    while True:
        with suppress(BlockingIOError):
            return fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if (blocks := os.fstat(part).st_blocks) > most:
            most = blocks
            patience.renew()
        if patience.over():
            raise StoreFailed(f"{thing.url}: another process has not got on with it for {patience.seconds:g} s")
        patience.sleep(SOON)


def _lies_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _fill(file, thing: Object, patience: Patience) -> None:
    for _ in range(2):  # what was damaged on its way comes whole the second time
        total = hashlib.sha256()
        file.seek(0)
        for start in range(0, thing.size, PART):
            data = read(thing, start, min(start + PART, thing.size), patience)
            patience.renew()
            total.update(data)
            file.write(data)
        if thing.sha256 in ("", total.hexdigest()):
            break
    else:
        raise StoreFailed(f"{thing.url} has other bytes than its index says: upload it again")
    file.flush()
    os.fsync(file.fileno())


def _reserve(descriptor: int, thing: Object, patience: Patience) -> None:
    """Makes the file as long as the object, for which it first makes room. Raises StoreFailed if there cannot be."""
    most = limit()
    if thing.size > most:
        raise StoreFailed(f"{thing.url} has {thing.size:,} bytes, more than {LIMIT} allows")
    while True:
        with _counted() as count:
            used = count[0] + thing.size
            if used > most:
                used = _make_room(most - thing.size) + thing.size
            if fits := used <= most:
                os.ftruncate(descriptor, thing.size)
                count[0] = used
        if fits:
            return
        patience.sleep(WAIT)


@contextmanager
def _counted() -> Iterator[list[int]]:
    """Holds the cache's lock and [the bytes that are used at most]; what stands there at the end is kept."""
    with open(os.open(_root() / "used", os.O_RDWR | os.O_CREAT, 0o644), "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        told = file.read()
        count = [int(told) if told.isdigit() else limit()]
        yield count
        file.seek(0)
        file.truncate()
        file.write(str(count[0]))


def _make_room(most: int) -> int:
    """Removes what was not used for longest until at most `most` bytes are left, and torn files -> the bytes left."""
    found, held = [], 0
    for folder in (entry for entry in os.scandir(_root()) if entry.is_dir()):
        for entry in os.scandir(folder.path):
            with suppress(FileNotFoundError):  # one that has just failed
                state = entry.stat()
                if not entry.name.endswith(".part"):
                    found.append((state.st_mtime_ns, state.st_size, entry.path))
                elif not _torn(entry.path):
                    held += state.st_size
    used = held + sum(size for _, size, _ in found)
    least = len(found) // 16  # of many small files, so that not every fetch comes to look through all of them
    for number, (_, size, path) in enumerate(sorted(found) if used > most else ()):
        if used <= most and number >= least:
            break
        os.unlink(path)
        used -= size
    return used


def _torn(part: str) -> bool:
    """Whether nobody is fetching it any more; then it is gone."""
    with open(part, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        os.unlink(part)
        return True
