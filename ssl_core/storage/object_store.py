"""What lies at a URL, and its bytes, through fsspec: asked again with growing waits while a store fails."""

import errno
import random
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

import fsspec

from ssl_core.errors import ObjectNotFound, StorageError, UserError
from ssl_core.storage.retry import RetryDeadline

T = TypeVar("T")
# until an answer is given up; a listing of millions takes minutes, and so does sending a large checkpoint
ATTEMPT_TIMEOUT_S, LISTING_TIMEOUT_S = 60.0, 600.0
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0  # seconds before another attempt; they double
MAX_CONCURRENT = 8  # questions of this process that a store has not answered, those given up among them
POLL_S = 0.1  # seconds until who waits for an answer looks whether it is still wanted
RETRY_LATER = {408, 425, 429}  # the HTTP statuses below 500 that pass
FORBIDDEN = {401, 403}
ALREADY_EXISTS = {409, 412}  # there is such an object already
STAMPS = (
    "ETag",
    "etag",
    "md5Hash",
    "content_md5",
    "Content-MD5",
    "Digest",
    "LastModified",
    "last_modified",
    "updated",
    "mtime",
    "created",
)
MAX_THREADS = 16  # questions at a time, where a listing does not tell sizes


class SizeUnknown(StorageError):
    """A store does not tell how long an object is, so that nobody could say whether all of it came."""


class Object(NamedTuple):
    """A file in a store, told apart from what lay at its URL before; `sha256`, where known, is of its bytes."""

    url: str
    size: int
    stamp: str
    sha256: str = ""


_slots = threading.Semaphore(MAX_CONCURRENT)


def is_url(data: str) -> bool:
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", data) is not None


def check_url(url: str, option: str = "--data") -> str:
    """`url`, told by `option`, without a slash at its end. Raises UserError if it cannot be opened here, or holds what
    must stay secret."""
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
    """What lies at `url`. Raises ObjectNotFound or StorageError."""

    def request() -> Object:
        filesystem, path = _filesystem(url)
        filesystem.invalidate_cache()
        return _object(url, filesystem.info(path))

    return _retry_until_deadline(request, url, RetryDeadline(brief=True), ATTEMPT_TIMEOUT_S)


def list_objects(
    url: str, wanted: Callable[[str], bool], left_out: Callable[[Exception], object] | None = None
) -> dict[str, Object]:
    """The files below `url`, at any depth, whose path from there is `wanted`, by that path. `left_out` hears of those
    that are not there or tell no size.

    Raises ObjectNotFound if there is nothing, or StorageError.
    """

    def request() -> dict[str, dict]:
        filesystem, path = _filesystem(url + "/")
        filesystem.invalidate_cache()
        return filesystem.find(path, detail=True)

    found = _retry_until_deadline(request, url, RetryDeadline(brief=True), LISTING_TIMEOUT_S)
    filesystem, root = _filesystem(url + "/")
    web = urlsplit(url).scheme in ("http", "https")  # there, names are quoted and sizes are not told
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
    """Its bytes from `start` up to `stop`. Raises ObjectNotFound or StorageError."""

    def request() -> bytes:
        filesystem, path = _filesystem(obj.url)
        part = {} if stop - start == obj.size else {"start": start, "end": stop}
        data = filesystem.cat_file(path, **part)
        if part and len(data) == obj.size:  # a server that knows no ranges
            data = data[start:stop]
        if len(data) != stop - start:
            raise OSError(f"{len(data):,} bytes came instead of {stop - start:,}")
        return data

    return _retry_until_deadline(request, obj.url, deadline, ATTEMPT_TIMEOUT_S)


def with_retries(request: Callable[[], T], url: str) -> T:
    """What request(), about what lies at `url`, returns; again while the store fails. Raises ObjectNotFound or
    StorageError."""
    deadline = RetryDeadline()
    return _retry_until_deadline(request, url, deadline, min(LISTING_TIMEOUT_S, deadline.seconds))


def read_whole(url: str) -> bytes:
    """The object at `url`, as long as it may be. Raises ObjectNotFound or StorageError."""

    def request() -> bytes:
        filesystem, path = _filesystem(url)
        return filesystem.cat_file(path)

    return with_retries(request, url)


def write(url: str, data: bytes) -> None:
    """Puts `data` at `url`, in one piece for those who read it. Raises StorageError."""

    def request() -> None:
        filesystem, path = _filesystem(url)
        filesystem.pipe_file(path, data)

    with_retries(request, url)


def create(url: str, data: bytes) -> bool:
    """Puts `data`, unlike anyone else's, at `url` unless something is there -> whether it did. Raises StorageError."""

    def request() -> bool:
        filesystem, path = _filesystem(url)
        try:
            filesystem.pipe_file(path, data, mode="create")
            return True
        except Exception as error:
            if not isinstance(error, FileExistsError) and _status(_root_cause(error)) not in ALREADY_EXISTS:
                raise
        return filesystem.cat_file(path) == data  # ours, if only the answer to an earlier attempt was lost

    return with_retries(request, url)


def _retry_until_deadline(request: Callable[[], T], url: str, deadline: RetryDeadline, time_limit: float) -> T:
    """What request() returns, asked again while it fails or takes longer than `time_limit` seconds, until `deadline` is
    over.

    Raises ObjectNotFound, or StorageError for all else, at once where asking again is of no use.
    """
    wait = FIRST_WAIT_S
    while True:
        try:
            return _with_time_limit(request, time_limit, deadline)
        except StorageError:
            raise
        except Exception as error:
            cause = _root_cause(error)
            status = _status(cause)
            if isinstance(cause, FileNotFoundError) or status in (404, 410):
                raise ObjectNotFound(f"{url}: not found") from error
            message = f"{url}: {' '.join(str(cause).split()) or type(cause).__name__}"
            if isinstance(cause, PermissionError) or status in FORBIDDEN or "Credentials" in type(cause).__name__:
                raise StorageError(f"{message} (no permission)") from error
            if not _is_transient(cause, status) or deadline.over(wait):
                raise StorageError(message) from error
        deadline.sleep(wait * random.uniform(0.5, 1))  # many workers must not come back at the same moment
        wait = min(2 * wait, LONGEST_WAIT_S)


def _with_time_limit(request: Callable[[], T], seconds: float, deadline: RetryDeadline) -> T:
    """ask() in a thread that is left behind, as few stores can be told to stop, if it takes longer."""
    answers: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

    def work() -> None:
        try:
            answers.put((request(), None))
        except BaseException as error:
            answers.put((None, error))
        finally:
            slots.release()

    slots = _slots
    while not slots.acquire(timeout=POLL_S):
        deadline.sleep(0)
        if deadline.over():
            raise TimeoutError("what was asked before is not answered")
    threading.Thread(target=work, daemon=True, name="asks a store").start()
    last = time.monotonic() + seconds
    while True:
        try:
            value, error = answers.get(timeout=POLL_S)
            break
        except Empty:
            deadline.sleep(0)
            if time.monotonic() > last:
                raise TimeoutError(f"no answer within {seconds:g} s") from None
    if error is not None:
        raise error
    return value


def _is_transient(cause: BaseException, status: int | None) -> bool:
    """Whether asking again may help: not where the question was wrong, or this program is."""
    if status is not None and 400 <= status < 500:
        return status in RETRY_LATER
    if isinstance(cause, OSError):
        return cause.errno != errno.EINVAL  # s3fs's name for a bad request
    return type(cause).__module__.split(".")[0] != "builtins"


def _root_cause(error: Exception) -> BaseException:
    """fsspec's HTTP says that a file is not found whatever went wrong."""
    cause = error.__cause__
    hidden = isinstance(error, FileNotFoundError) and (isinstance(cause, OSError) or _status(cause) is not None)
    return cause if hidden and cause is not None else error


def _status(error: BaseException | None) -> int | None:
    """The HTTP status that aiohttp's, botocore's and Google's errors carry, each under a name of its own."""
    reply = getattr(error, "response", None)
    response_status = reply.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(reply, dict) else None
    response_status = response_status or getattr(error, "status", None) or getattr(error, "code", None)
    return response_status if isinstance(response_status, int) else None


def _filesystem(url: str) -> tuple[Any, str]:
    return fsspec.core.url_to_fs(url)


def _object(url: str, info: dict) -> Object:
    """Raises ObjectNotFound if it is a folder, or SizeUnknown if the store does not tell its size."""
    if info.get("type") == "directory":
        raise ObjectNotFound(f"{url}: a folder")
    if info.get("size") is None:
        raise SizeUnknown(f"{url}: the store does not tell its size")
    return Object(url, int(info["size"]), str(next((info[name] for name in STAMPS if info.get(name)), "")))
