"""Whether the head of a Ray cluster answers, with a limit and a word.

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

FIRST_ANSWER, ANSWER = 2.0, 10.0  # seconds for the first answer, after which there is a word, and for each later one
PAUSE = 1.0  # seconds between two questions
PATIENCE = "RAY_gcs_rpc_server_reconnect_timeout_s"  # Ray's own, if it is set
LOOK = 5.0  # seconds between two looks whether a head that was joined is still there


class ClusterError(RuntimeError):
    """The cluster cannot do what was asked, or a job on it failed."""

    exit_code = 1


class BadAddress(ClusterError):
    """No Ray cluster can be joined at an address like this one."""

    exit_code = 2


def await_head(address: str, seconds: float, waiting: Callable[[str], object]) -> str:
    """Returns as soon as the head of the cluster at `address`, "HOST:PORT" or "auto" for one that runs on this
    machine, answers -> its HOST:PORT. `waiting` is told, once, if it does not at first.

    Raises ClusterError if it does not within `seconds`, or something else answers, or it wants another token, and
    BadAddress.
    """
    until, patience = None, FIRST_ANSWER
    while True:
        place = _place(address)
        why = _asked(place, patience) if place else "none was started on this machine"
        if place and not why:
            return place
        silent = f"no Ray cluster answers at {address if place in (address, None) else f'{address} ({place})'}: {why}"
        if until is None and seconds:
            until = time.monotonic() + seconds
            waiting(f"{silent}; trying for up to {seconds:.0f} s")
        left = until - time.monotonic() if until else 0
        if left <= 0:
            raise ClusterError(f"{silent}; tried for {seconds:.0f} s")
        time.sleep(min(PAUSE, left))
        patience = max(FIRST_ANSWER, min(ANSWER, left))


def _place(address: str) -> str | None:
    """HOST:PORT, or None if none is known on this machine. Raises BadAddress."""
    from ray._private.services import canonicalize_bootstrap_address

    if "://" in address:
        raise BadAddress(
            f"{address} is no address of a Ray cluster's head, which is HOST:PORT, most often port 6379; "
            "from a machine that is not in the cluster, use tilespin submit --address http://HOST:8265"
        )
    host, _, port = address.rpartition(":")
    try:
        if address != "auto" and not (host and port.isdecimal() and 0 < int(port) < 65536):
            raise ValueError
        return canonicalize_bootstrap_address(address)
    except ConnectionError:
        return None
    except ValueError as error:
        said = f"{address!r} is no address of a Ray cluster's head: expected HOST:PORT, or auto"
        raise BadAddress(said) from error


def _asked(place: str, seconds: float) -> str:
    """Why the head at `place` does not answer within `seconds`; nothing if it does. Raises ClusterError if that is to
    stay so."""
    import grpc
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated.gcs_service_pb2 import GetClusterIdRequest
    from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub
    from ray.exceptions import AuthenticationError

    try:
        with init_grpc_channel(place) as channel:
            NodeInfoGcsServiceStub(channel).GetClusterId(GetClusterIdRequest(), timeout=seconds)
    except AuthenticationError as error:
        raise ClusterError(wants_token(place)) from error
    except grpc.RpcError as error:
        code, details = error.code(), error.details() or ""  # pyright: ignore
        if code == grpc.StatusCode.UNAUTHENTICATED:
            raise ClusterError(wants_token(place)) from error
        if code == grpc.StatusCode.UNIMPLEMENTED or "SETTINGS frame" in details:
            raise ClusterError(
                f"what answers at {place} is not the head of a Ray cluster: is the port right?"
            ) from error
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"no answer within {seconds:.0f} s"
        return details.rpartition(": ")[2].strip(" ]") or code.name
    return ""


def wants_token(address: str) -> str:
    return (
        f"the cluster at {address} wants its token: RAY_AUTH_MODE=token, and the token in RAY_AUTH_TOKEN or in the "
        "file that RAY_AUTH_TOKEN_PATH names"
    )


def _patience() -> float:
    """Seconds that Ray bears without its head."""
    try:
        return float(os.environ.get(PATIENCE, "60"))
    except ValueError:
        return 60.0


@contextmanager
def watched(place: str) -> Iterator[None]:
    """Ends this process, with a word and exit code 1, if nothing listens at `place` for almost as long as Ray would
    bear it, which then ends the process too."""
    host, port = place.rsplit(":", 1)
    limit, ended = max(LOOK, _patience() - 2 * LOOK), threading.Event()

    def watch() -> None:
        seen = time.monotonic()
        while not ended.wait(LOOK):
            try:
                socket.create_connection((host.strip("[]"), int(port)), timeout=LOOK).close()
                seen = time.monotonic()
            except OSError:
                if (missed := time.monotonic() - seen) > limit:
                    print(
                        f"tilespin: the head of the Ray cluster at {place} is gone: no answer for {missed:.0f} s; "
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
        ended.set()
        thread.join()
