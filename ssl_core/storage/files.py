"""Writing that a crash cannot tear: everything is written beside its place and renamed into it, or, in an object
store, put whole."""

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ssl_core.errors import ObjectNotFound, UserError
from ssl_core.storage import object_store


def open_path(location: str, option: str = "--storage") -> Path:
    """`location`, a path or a URL that fsspec opens, as an absolute path: a pathlib.Path, or what behaves like one.

    Raises UserError for a URL that cannot be opened here, or a home folder that nobody has, named after the command
    line's `option`.
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
    return isinstance(path, Path)


def write_bytes(path: Path, data: bytes) -> None:
    """Puts `data` at `path` so that a reader sees the old content or the new, never a part.

    Raises OSError from a disk, or StorageError from a store that failed for longer than anyone waits.
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


def _temporary_path(path: Path) -> Path:
    """Where this thread writes what is to be at `path`: under a name that is no longer than file systems allow."""
    return path.with_name(f".{path.name[:50]}.{os.getpid()}.{threading.get_ident()}")


@contextlib.contextmanager
def _named_error(path: Path, temporary: Path) -> Iterator[None]:
    """An error of the file `temporary` is raised as one of `path`, which somebody asked for; so is one of no file's, as
    of a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def create(path: Path, data: bytes) -> bool:
    """Puts `data` at `path` unless something is there already -> whether it did. Of several that try, one does."""
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
    """Raises FileNotFoundError, OSError from a disk or StorageError."""
    if is_local(path):
        return path.read_bytes()
    return object_store.read_whole(str(path))


def read_text(path: Path) -> str:
    return read_bytes(path).decode()


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, value) -> None:
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def read_json(path: Path):
    """Raises UserError if the file is not JSON: we never leave one half-written, so somebody else changed it."""
    try:
        return json.loads(read_bytes(path))
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error


def exists(path: Path) -> bool:
    return path.exists() if is_local(path) else object_store.with_retries(path.exists, str(path))


def size(path: Path) -> int:
    """Bytes of the file; 0 if there is none."""
    try:
        return (path.stat() if is_local(path) else object_store.with_retries(path.stat, str(path))).st_size
    except (FileNotFoundError, ObjectNotFound):
        return 0


def glob_files(folder: Path, pattern: str) -> list[Path]:
    """What fits `pattern` below `folder`, sorted."""
    if is_local(folder):
        return sorted(folder.glob(pattern))
    return object_store.with_retries(lambda: sorted(folder.glob(pattern)), str(folder))


def remove(path: Path) -> None:
    """Removes the file, if it is there."""
    with contextlib.suppress(FileNotFoundError, ObjectNotFound):
        path.unlink() if is_local(path) else object_store.with_retries(path.unlink, str(path))
