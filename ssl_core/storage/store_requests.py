"""Requests to a store: each has a time limit, and is repeated with growing waits while the store fails."""

import errno
import random
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from ssl_core.errors import ObjectNotFound, StorageError
from ssl_core.storage.retry import RetryDeadline

T = TypeVar("T")
# until an answer is given up; a listing of millions takes minutes, and so does sending a large checkpoint
ATTEMPT_TIMEOUT_S, LISTING_TIMEOUT_S = 60.0, 600.0
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0  # seconds before another attempt; they double
MAX_CONCURRENT = 8  # requests of this process that a store has not answered, those given up among them
POLL_S = 0.1  # seconds between looks whether an answer is still wanted
RETRY_LATER = {408, 425, 429}  # the HTTP statuses below 500 that pass
FORBIDDEN = {401, 403}

_slots = threading.Semaphore(MAX_CONCURRENT)


def with_retries(request: Callable[[], T], url: str) -> T:
    """Sends a request until the store answers, with the deadline of this thread.

    Args:
        request: Asks the store, in another thread, and returns its answer.
        url: What the request is about, for messages.

    Returns:
        What `request` returns.

    Raises:
        ObjectNotFound: If nothing is at the URL.
        StorageError: If the store refuses, or failed until the deadline.
    """
    deadline = RetryDeadline()
    return retry_until_deadline(request, url, deadline, min(LISTING_TIMEOUT_S, deadline.seconds))


def retry_until_deadline(request: Callable[[], T], url: str, deadline: RetryDeadline, time_limit: float) -> T:
    """Sends a request until the store answers or the deadline is over, with growing waits between attempts.

    Args:
        request: Asks the store, in another thread, and returns its answer.
        url: What the request is about, for messages.
        deadline: Until when failures are tried again.
        time_limit: Seconds after which one attempt counts as failed.

    Returns:
        What `request` returns.

    Raises:
        ObjectNotFound: If nothing is at the URL.
        StorageError: If the store failed until the deadline, or at once where asking again is of no use.
    """
    wait = FIRST_WAIT_S
    while True:
        try:
            return _with_time_limit(request, time_limit, deadline)
        except StorageError:
            raise
        except Exception as error:
            cause = root_cause(error)
            status = http_status(cause)
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
    """Returns what `request` returns. It runs in a thread that is abandoned, as few clients can be stopped, after
    `seconds`; then TimeoutError is raised."""
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
    """Returns whether asking again may help: not where the request was wrong, or this program is."""
    if status is not None and 400 <= status < 500:
        return status in RETRY_LATER
    if isinstance(cause, OSError):
        return cause.errno != errno.EINVAL  # s3fs's name for a bad request
    return type(cause).__module__.split(".")[0] != "builtins"


def root_cause(error: Exception) -> BaseException:
    """Returns the error behind a FileNotFoundError, which fsspec's HTTP raises whatever went wrong, or the error
    itself."""
    cause = error.__cause__
    hidden = isinstance(error, FileNotFoundError) and (isinstance(cause, OSError) or http_status(cause) is not None)
    return cause if hidden and cause is not None else error


def http_status(error: BaseException | None) -> int | None:
    """Returns the HTTP status of an error of aiohttp, botocore or Google, which name it differently, if it has one."""
    reply = getattr(error, "response", None)
    response_status = reply.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(reply, dict) else None
    response_status = response_status or getattr(error, "status", None) or getattr(error, "code", None)
    return response_status if isinstance(response_status, int) else None
