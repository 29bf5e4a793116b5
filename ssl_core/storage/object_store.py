"""What is at a URL, and its bytes, through fsspec; a request is repeated with growing waits while a store fails."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import fsspec

from ssl_core.errors import ObjectNotFound, StorageError, UserError
from ssl_core.storage import store_requests
from ssl_core.storage.retry import RetryDeadline
from ssl_core.storage.store_requests import http_status, retry_until_deadline, root_cause, with_retries

ALREADY_EXISTS = {409, 412}  # there is such an object already
STAMPS = (
    "ETag",
    "etag",
    "md5Hash",
    "content_md5",
    "Content-MD5",
    "Digest",
    "blob_id",
    "LastModified",
    "last_modified",
    "updated",
    "mtime",
    "created",
)
MAX_THREADS = 16  # requests at a time, where a listing does not give sizes


class SizeUnknown(StorageError):
    """A store does not say how long an object is, so that a transfer that was cut off would go unnoticed."""


class Object(NamedTuple):
    """A file in a store, with what tells it apart from an earlier one at its URL.

    Attributes:
        url: Where it is.
        size: Bytes.
        stamp: An ETag, checksum or time of change; "" if the store gives none.
        sha256: Of its bytes, in hexadecimal; "" if not known.
    """

    url: str
    size: int
    stamp: str
    sha256: str = ""


def is_url(data: str) -> bool:
    """Returns whether a value of the command line is a URL and not a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", data) is not None


def check_url(url: str, option: str = "--data") -> str:
    """Checks that a URL can be opened here, without asking its store.

    Args:
        url: What the user gave.
        option: The command line's option that gave it, for messages.

    Returns:
        The URL without a slash at its end.

    Raises:
        UserError: If the protocol is unknown, a package for it is missing, or the URL holds a password or, with http,
            a query, which may be a secret.
    """
    try:
        parts = urlsplit(url)
        if parts.password is not None or (parts.scheme in ("http", "https") and parts.query):
            shown = f"{parts.scheme}://{parts.hostname}{parts.path}"
            raise UserError(
                f"{option} {shown}: give credentials in the environment, not as a password or query of a URL"
            )
        _filesystem(url)
    except ImportError as error:
        raise UserError(f"{option} {url}: {error}: pip install 'fsspec[{url.partition(':')[0]}]'") from error
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{option} {url}: {error}") from error
    return url.rstrip("/")


def stat(url: str) -> Object:
    """Returns what is at a URL, as the store has it now.

    Raises:
        ObjectNotFound: If nothing is there, or a folder.
        StorageError: If the store fails, or does not say the size (SizeUnknown).
    """

    def request() -> Object:
        filesystem, path = _filesystem(url)
        filesystem.invalidate_cache()
        return _object(url, filesystem.info(path))

    return retry_until_deadline(request, url, RetryDeadline(brief=True), store_requests.ATTEMPT_TIMEOUT_S)


def list_objects(
    url: str, wanted: Callable[[str], bool], left_out: Callable[[Exception], object] | None = None
) -> dict[str, Object]:
    """Lists the files below a URL, at any depth.

    Args:
        url: A folder.
        wanted: Whether a file is listed, by its path from the folder, with slashes.
        left_out: Called with the error of each file that is gone or whose size the store does not say.

    Returns:
        The files by their paths from the folder.

    Raises:
        ObjectNotFound: If there is nothing.
        StorageError: If the store fails.
    """

    def request() -> dict[str, dict]:
        filesystem, path = _filesystem(url + "/")
        filesystem.invalidate_cache()
        return filesystem.find(path, detail=True)

    found = retry_until_deadline(request, url, RetryDeadline(brief=True), store_requests.LISTING_TIMEOUT_S)
    filesystem, root = _filesystem(url + "/")
    web = urlsplit(url).scheme in ("http", "https")  # there, names are quoted and sizes are not listed
    start = len(root.rstrip("/")) + 1
    entries = {(unquote(path[start:]) if web else path[start:]): (path, info) for path, info in found.items()}
    if not any(entries):
        raise ObjectNotFound(url)
    entries = {name: entry for name, entry in entries.items() if wanted(name)}

    def found_at(entry: tuple[str, dict]) -> Object | None:
        path, info = entry
        try:
            return stat(path) if web else _object(filesystem.unstrip_protocol(path), info)
        except (ObjectNotFound, SizeUnknown) as error:
            if left_out:
                left_out(error)
            return None

    with ThreadPoolExecutor(MAX_THREADS, "looks") as pool:
        objects = (pool.map if web else map)(found_at, entries.values())
        return {name: obj for name, obj in zip(entries, objects) if obj}


def read(obj: Object, start: int, stop: int, deadline: RetryDeadline) -> bytes:
    """Returns a part of an object.

    Args:
        obj: The object.
        start: The first byte.
        stop: The byte after the last.
        deadline: Until when failures are tried again.

    Returns:
        Exactly `stop - start` bytes.

    Raises:
        ObjectNotFound: If the object is gone.
        StorageError: If the store fails, or gives another number of bytes, until the deadline.
    """

    def request() -> bytes:
        filesystem, path = _filesystem(obj.url)
        part: dict[str, Any] = {} if stop - start == obj.size else {"start": start, "end": stop}
        if part and obj.url.startswith("hf://"):
            part["cache_type"] = "none"  # its files read five megabytes further for each part
        data = filesystem.cat_file(path, **part)
        if part and len(data) == obj.size:  # a server that knows no ranges
            data = data[start:stop]
        if len(data) != stop - start:
            raise OSError(f"{len(data):,} bytes came instead of {stop - start:,}")
        return data

    return retry_until_deadline(request, obj.url, deadline, store_requests.ATTEMPT_TIMEOUT_S)


def read_whole(url: str) -> bytes:
    """Returns all bytes at a URL, however many.

    Raises:
        ObjectNotFound: If nothing is there.
        StorageError: If the store fails.
    """

    def request() -> bytes:
        filesystem, path = _filesystem(url)
        return filesystem.cat_file(path)

    return with_retries(request, url)


def write(url: str, data: bytes | memoryview) -> None:
    """Puts data at a URL, so that a reader sees the old content or the new; raises StorageError if the store fails."""

    def request() -> None:
        filesystem, path = _filesystem(url)
        filesystem.pipe_file(path, bytes(data))  # S3's client takes no memoryview

    with_retries(request, url)


def create(url: str, data: bytes) -> bool:
    """Puts data at a URL unless something is there.

    Args:
        url: Where to.
        data: Unlike that of any other process: an attempt whose answer was lost is recognized by it.

    Returns:
        Whether the data are there by this call.

    Raises:
        StorageError: If the store fails.
    """

    def request() -> bool:
        filesystem, path = _filesystem(url)
        try:
            filesystem.pipe_file(path, data, mode="create")
            return True
        except Exception as error:
            if not isinstance(error, FileExistsError) and http_status(root_cause(error)) not in ALREADY_EXISTS:
                raise
        return filesystem.cat_file(path) == data  # ours, if only the answer to an earlier attempt was lost

    return with_retries(request, url)


def _filesystem(url: str) -> tuple[Any, str]:
    return fsspec.core.url_to_fs(url)


def _object(url: str, info: dict) -> Object:
    """Returns the object that fsspec describes by `info`. Raises ObjectNotFound if it is a folder, or SizeUnknown."""
    if info.get("type") == "directory":
        raise ObjectNotFound(f"{url}: a folder")
    if info.get("size") is None:
        raise SizeUnknown(f"{url}: the store does not tell its size")
    return Object(url, int(info["size"]), str(next((info[name] for name in STAMPS if info.get(name)), "")))
