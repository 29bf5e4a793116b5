"""Files on a disk or in an object store: a reader sees a file whole or not at all, even after a crash.

On a disk a file is written under another name and then renamed; an object store puts objects whole.
"""

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ssl_core.errors import ObjectNotFound, UserError
from ssl_core.storage import object_store
from ssl_core.storage.retry import RetryDeadline
from ssl_core.storage.store_requests import LISTING_TIMEOUT_S, retry_until_deadline, with_retries

SLOWEST_UPLOAD = 1e6  # bytes a second: an attempt that takes longer is given up


def open_path(location: str, option: str = "--storage") -> Path:
    """Returns a location as an absolute path.

    Args:
        location: A path, in which ~ is expanded, or a URL that fsspec opens.
        option: The command line's option that gave it, for messages.

    Returns:
        A pathlib.Path, or a universal_pathlib.UPath, which behaves like one, for a URL.

    Raises:
        UserError: If a URL cannot be opened here, or nobody has the home folder.
    """
    if not object_store.is_url(location):
        try:
            return Path(location).expanduser().absolute()
        except RuntimeError as error:
            raise UserError(f"{option} {location}: {error}") from error
    from upath import UPath

    # other machines write there too, so that no listing may be remembered
    url: Any = UPath(object_store.check_url(location, option), use_listings_cache=False)
    return url


def is_local(path: Path) -> bool:
    """Returns whether a path of `open_path` is on a disk and not in an object store."""
    return isinstance(path, Path)


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Writes a file so that a reader sees the old content or the new, never a part; makes its folder if needed.

    Args:
        path: On a disk or in an object store.
        data: The new content.

    Raises:
        OSError: If a disk cannot be written; it names `path`.
        StorageError: If an object store failed for longer than is waited for.
    """
    if not is_local(path):
        object_store.write(str(path), data)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_path(path)
    with _named_error(path, temporary):
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):  # where nothing can be written, nothing lies
                temporary.unlink(missing_ok=True)


def move_file(source: Path, path: Path) -> None:
    """Moves a finished file to its place, where a reader sees the old content or the new, never a part.

    Args:
        source: On a disk; where `path` is on a disk too, on the same file system.
        path: On a disk or in an object store.

    Raises:
        OSError: If a disk cannot be written.
        StorageError: If an object store failed for longer than is waited for.
    """
    if not is_local(path):
        seconds = max(LISTING_TIMEOUT_S, source.stat().st_size / SLOWEST_UPLOAD)
        url: Any = path
        retry_until_deadline(lambda: url.fs.put_file(str(source), url.path), str(path), RetryDeadline(), seconds)
        source.unlink()
        return
    with open(source, "rb") as file:
        os.fsync(file.fileno())
    os.replace(source, path)


def _temporary_path(path: Path) -> Path:
    """Returns where this thread writes what is to be at `path`, under a name no longer than file systems allow."""
    return path.with_name(f".{path.name[:50]}.{os.getpid()}.{threading.get_ident()}")


@contextlib.contextmanager
def _named_error(path: Path, temporary: Path) -> Iterator[None]:
    """Raises an error of the file `temporary`, or of no file, as one of `path`, which is the name that a user knows."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def create(path: Path, data: bytes) -> bool:
    """Creates a file unless there is one already; of several processes that try, one succeeds.

    Args:
        path: On a disk or in an object store.
        data: The content; in an object store it must be unlike that of any other process.

    Returns:
        Whether this call created it.

    Raises:
        OSError: If a disk cannot be written.
        StorageError: If an object store failed for longer than is waited for.
    """
    if not is_local(path):
        return object_store.create(str(path), data)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_path(path)
    try:
        with _named_error(path, temporary):
            write_bytes(temporary, data)
        try:
            os.link(temporary, path)  # unlike a rename it fails if something is there, on NFS too
        except PermissionError:  # a file system without links, such as a mounted bucket
            with open(path, "xb") as file:
                file.write(data)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


def read_bytes(path: Path) -> bytes:
    """Returns the content of a file.

    Raises:
        FileNotFoundError: If there is none.
        OSError: If a disk cannot be read.
        StorageError: If an object store failed for longer than is waited for.
    """
    if is_local(path):
        return path.read_bytes()
    return object_store.read_whole(str(path))


def read_text(path: Path) -> str:
    """Returns the content of a UTF-8 file; raises what `read_bytes` raises."""
    return read_bytes(path).decode()


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 file as `write_bytes` does."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file, indented and with sorted keys, as `write_bytes` does."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    """Returns the content of a JSON file.

    Raises:
        FileNotFoundError: If there is none.
        OSError: If a disk cannot be read.
        StorageError: If an object store failed for longer than is waited for.
        UserError: If it is not JSON: no file is left half-written, so somebody else changed it.
    """
    try:
        return json.loads(read_bytes(path))
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error


def exists(path: Path) -> bool:
    """Returns whether there is a file or folder; raises StorageError if an object store does not say."""
    return path.exists() if is_local(path) else with_retries(path.exists, str(path))


def size(path: Path) -> int:
    """Returns the size of a file in bytes; 0 if there is none."""
    try:
        return (path.stat() if is_local(path) else with_retries(path.stat, str(path))).st_size
    except (FileNotFoundError, ObjectNotFound):
        return 0


def glob_files(folder: Path, pattern: str) -> list[Path]:
    """Returns the sorted paths below `folder` that fit the glob pattern."""
    if is_local(folder):
        return sorted(folder.glob(pattern))
    return with_retries(lambda: sorted(folder.glob(pattern)), str(folder))


def remove(path: Path) -> None:
    """Removes a file, if it is there."""
    with contextlib.suppress(FileNotFoundError, ObjectNotFound):
        path.unlink() if is_local(path) else with_retries(path.unlink, str(path))
