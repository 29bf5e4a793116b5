"""Finds out whether the head of a Ray cluster answers, within a time limit, and says so in one line.

Ray itself tries for a quarter of an hour to join a cluster that is gone, and only lines of its log tell so. When the
head goes later, it ends the process.
"""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cluster.private_ray import call_head, resolve_address
from ssl_core.errors import TilespinError

FIRST_ANSWER_S = 2.0  # for the first answer, after which there is a word
ANSWER_S = 10.0  # for each later one
PAUSE_S = 1.0  # seconds between two questions
RECONNECT_TIMEOUT_VARIABLE = "RAY_gcs_rpc_server_reconnect_timeout_s"  # Ray's own, if it is set
POLL_S = 5.0  # seconds between two looks whether a head that was joined is still there


class ClusterError(TilespinError, RuntimeError):
    """Says that the cluster cannot do what was asked, or that a job on it failed."""


class BadAddress(ClusterError):
    """Says that no Ray cluster can be joined at an address like this one."""

    exit_code = 2


def wait_for_head(address: str, timeout: float, notify: Callable[[str], object]) -> str:
    """Waits until the head of a cluster answers and returns its HOST:PORT.

    Args:
        address: "HOST:PORT", or "auto" for a cluster that runs on this machine.
        timeout: Seconds to wait.
        notify: Is called once with a message if the head does not answer at first.

    Raises:
        ClusterError: If it does not answer in time, something else answers, or it wants another token.
        BadAddress: If the address is not one of a cluster's head.
    """
    deadline, answer_timeout = None, FIRST_ANSWER_S
    while True:
        host_port = _resolve_address(address)
        reason = _connection_error(host_port, answer_timeout) if host_port else "none was started on this machine"
        if host_port and not reason:
            return host_port
        place = address if host_port in (address, None) else f"{address} ({host_port})"
        message = f"no Ray cluster answers at {place}: {reason}"
        if deadline is None and timeout:
            deadline = time.monotonic() + timeout
            notify(f"{message}; trying for up to {timeout:.0f} s")
        remaining = deadline - time.monotonic() if deadline else 0
        if remaining <= 0:
            raise ClusterError(f"{message}; tried for {timeout:.0f} s")
        time.sleep(min(PAUSE_S, remaining))
        answer_timeout = max(FIRST_ANSWER_S, min(ANSWER_S, remaining))


def _resolve_address(address: str) -> str | None:
    """Returns HOST:PORT, or None if no cluster is known on this machine. Raises BadAddress."""
    if "://" in address:
        raise BadAddress(
            f"{address} is no address of a Ray cluster's head, which is HOST:PORT, most often port 6379; "
            "from a machine that is not in the cluster, use tilespin submit --address http://HOST:8265"
        )
    host, _, port = address.rpartition(":")
    try:
        if address != "auto" and not (host and port.isdecimal() and 0 < int(port) < 65536):
            raise ValueError
        return resolve_address(address)
    except ConnectionError:
        return None
    except ValueError as error:
        message = f"{address!r} is no address of a Ray cluster's head: expected HOST:PORT, or auto"
        raise BadAddress(message) from error


def _connection_error(host_port: str, timeout: float) -> str:
    """Returns why the head at `host_port` does not answer within `timeout` seconds, or "" if it does.

    Raises ClusterError if waiting would not help.
    """
    import grpc
    from ray.exceptions import AuthenticationError

    try:
        call_head(host_port, timeout)
    except AuthenticationError as error:
        raise ClusterError(token_message(host_port)) from error
    except grpc.RpcError as error:
        code, details = error.code(), error.details() or ""  # pyright: ignore[reportAttributeAccessIssue] it has both
        if code == grpc.StatusCode.UNAUTHENTICATED:
            raise ClusterError(token_message(host_port)) from error
        if code == grpc.StatusCode.UNIMPLEMENTED or "SETTINGS frame" in details:
            raise ClusterError(
                f"what answers at {host_port} is not the head of a Ray cluster: is the port right?"
            ) from error
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"no answer within {timeout:.0f} s"
        return details.rpartition(": ")[2].strip(" ]") or code.name
    return ""


def token_message(address: str) -> str:
    """Returns the message for a cluster that refuses this user's token."""
    return (
        f"the cluster at {address} wants its token: RAY_AUTH_MODE=token, and the token in RAY_AUTH_TOKEN or in the "
        "file that RAY_AUTH_TOKEN_PATH names"
    )


def _reconnect_timeout() -> float:
    """Returns how many seconds Ray goes on without its head."""
    try:
        return float(os.environ.get(RECONNECT_TIMEOUT_VARIABLE, "60"))
    except ValueError:
        return 60.0


@contextmanager
def watch_head(host_port: str) -> Iterator[None]:
    """Ends this process, with a message and exit code 1, once the head has been gone for too long.

    That is a little shorter than Ray itself waits, which would then end the process without a message.

    Args:
        host_port: The head's HOST:PORT, at which something must listen.
    """
    host, port = host_port.rsplit(":", 1)
    limit, stopped = max(POLL_S, _reconnect_timeout() - 2 * POLL_S), threading.Event()

    def watch() -> None:
        last_answer = time.monotonic()
        while not stopped.wait(POLL_S):
            try:
                socket.create_connection((host.strip("[]"), int(port)), timeout=POLL_S).close()
                last_answer = time.monotonic()
            except OSError:
                if (silence := time.monotonic() - last_answer) > limit:
                    print(
                        f"tilespin: the head of the Ray cluster at {host_port} is gone: no answer for {silence:.0f} s; "
                        "the same command continues where it stopped",
                        file=sys.stderr,
                        flush=True,
                    )
                    os._exit(1)

    thread = threading.Thread(target=watch, daemon=True, name="head")
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
