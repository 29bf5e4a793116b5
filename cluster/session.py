"""Starts Ray, or joins a cluster, without Ray's many log lines."""

import logging
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from cluster.child_processes import child_processes, kill_processes
from cluster.code_upload import runtime_env
from cluster.head import ClusterError, wait_for_head, watch_head
from cluster.private_ray import silence_raylet

# Set before Ray starts, because its processes inherit them. setdefault: what a user has set wins.
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # how often Train looks at its workers; 2 s slows every report
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # or every printed line appears twice
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",  # until workers that find no room count as a failed attempt
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # the queue looks for machines that will go, for all jobs alike
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the coming default, whose announcement is printed otherwise
    "RAY_COLOR_PREFIX": "0",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # how a job ends is told by its other result
}
RAY = b"/ray/"  # in the command lines of Ray's processes
MAX_STARTS = 3  # of a cluster of our own that does not come up in time
ANSWER_TIMEOUT_S = 60.0  # for a named cluster to answer
POLL_S = 1.0  # seconds between two looks at a cluster that is still growing


def apply_settings() -> None:
    """Applies SETTINGS to this process and those that it starts."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


def use_own_token() -> None:
    """Has Ray ask for a token that nobody else has. It must be called before Ray is imported, which is when Ray
    looks."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


@contextmanager
def session(
    cpus: int | None = None,
    address: str | None = None,
    timeout: float = ANSWER_TIMEOUT_S,
    notify: Callable[[str], object] = lambda message: print(message, file=sys.stderr, flush=True),
) -> Iterator[Mapping[str, float]]:
    """Starts Ray, or joins a cluster, for as long as the block runs.

    A cluster that is started here asks for a token that nobody else has, so that other users of the machine cannot
    run code in it. A cluster that is joined is sent this program's code.

    Args:
        cpus: CPU slots of a cluster that is started on this machine; default: its cores.
        address: A cluster to join; default: the one that RAY_ADDRESS names, else one is started on this machine.
        timeout: Seconds to wait for a cluster that does not answer.
        notify: Is called with a message if the cluster does not answer at once.

    Yields:
        The cluster's resources, such as {"CPU": 8.0, "GPU": 1.0}.

    Raises:
        ClusterError: If the cluster does not answer in time, or Ray cannot be started.
    """
    apply_settings()
    address = address or os.environ.get("RAY_ADDRESS")
    if address in (None, "", "local"):
        use_own_token()
    else:
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "2")  # each takes 40 s of a head that goes in this moment
    import ray

    if address in (None, "", "local"):
        options = dict(address="local", num_cpus=cpus or len(os.sched_getaffinity(0)), include_dashboard=False)
    else:
        options = dict(address=wait_for_head(address, timeout, notify), runtime_env=runtime_env())
    try:
        _start(options, notify)
    except Exception as error:  # some of Ray's have no other class
        message = " ".join(str(error).split())[:500]
        raise ClusterError(f"no Ray cluster answers at {address or 'this machine'}: {message}") from error
    silence_raylet()  # the scheduler says in one line what died
    try:
        with watch_head(ray.get_runtime_context().gcs_address):
            yield ray.cluster_resources()
    finally:
        ray.shutdown()


def _start(options: dict, notify: Callable[[str], object]) -> None:
    """Calls ray.init, again if Ray did not start within its own limit of 30 s, as on a busy machine."""
    import ray

    for left in reversed(range(MAX_STARTS)):
        before = child_processes(RAY)
        try:
            with _signals_kept():
                ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
            return
        except Exception as error:  # it has no other class
            if not left or "timed out during startup" not in str(error):
                raise
            kill_processes(child_processes(RAY) - before)  # it leaves them behind
            notify("Ray has not started within 30 s, as on a busy machine: it is started again")


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Keeps signals from what is started in the block, and keeps this process's own handlers.

    What is started outlives the terminal that this process was started in, as long as this process does, which has
    to save; Ray itself keeps Ctrl-C from its processes. Nor does a handler of SIGTERM that Ray leaves behind take
    the place of this process's own.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        signal.SIGHUP: signal.signal(signal.SIGHUP, signal.SIG_IGN),
        signal.SIGTERM: signal.getsignal(signal.SIGTERM),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def wait_for_resources(kind: str, count: int, timeout: float, notify: Callable[[str], object]) -> None:
    """Waits until the cluster of this session has enough CPUs or GPUs in all, which an autoscaler is asked for.

    Args:
        kind: "CPU" or "GPU".
        count: How many of them.
        timeout: Seconds to wait.
        notify: Is called once with a message if there are too few at first.

    Raises:
        ClusterError: If there are too few after `timeout`; it says what was asked for and what there is.
    """
    import ray
    from ray.autoscaler.sdk import request_resources

    deadline, asked = time.monotonic() + timeout, False
    try:
        while ray.cluster_resources().get(kind, 0) < count:
            message = f"asked for {count} {kind}s, the cluster has {_describe_nodes(kind)}"
            if time.monotonic() > deadline:
                raise ClusterError(f"{message}; waited {timeout:.0f} s for more")
            if not asked:
                asked = True
                notify(f"{message}; waiting up to {timeout:.0f} s for more")
                request_resources(bundles=[{kind: 1}] * count)
            time.sleep(POLL_S)
    finally:
        if asked:  # or machines would be kept for ever
            request_resources(bundles=[])


def _describe_nodes(kind: str) -> str:
    """Returns how many of `kind` there are, and on how many machines."""
    import ray

    alive = [node["Resources"].get(kind, 0) for node in ray.nodes() if node["Alive"]]
    return f"{sum(alive):.0f} on {len(alive)} machine{'s' * (len(alive) != 1)}"


def node_ids() -> list[str]:
    """Returns the ids of the cluster's living machines, the driver's first."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    return sorted((node["NodeID"] for node in ray.nodes() if node["Alive"]), key=lambda node: node != here)


def run_on_each_node(call: Callable, *args, timeout: float = 180) -> list:
    """Calls a function on each machine of the cluster.

    Args:
        call: The function.
        *args: Its arguments.
        timeout: Seconds to wait for each machine.

    Returns:
        What it returned on each machine, the driver's first; an exception in its place if it failed or took too
            long.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = [
        ray.remote(call)
        .options(
            num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=node, soft=False)
        )
        .remote(*args)
        for node in node_ids()
    ]
    found = []
    for answer in asked:
        try:
            found.append(ray.get(answer, timeout=timeout))
        except Exception as error:
            found.append(error)
    return found
