"""Starting Ray, or joining a cluster, without its chatter."""

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# Set before Ray starts, because its processes inherit them. setdefault: what a user has set wins.
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # how often Train looks at its workers; 2 s slows every report
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # or every printed line appears twice
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the coming default, whose announcement is printed otherwise
    "RAY_COLOR_PREFIX": "0",
}


class ClusterError(RuntimeError):
    """The cluster cannot do what was asked, or a job on it failed."""


@contextmanager
def session(cpus: int | None = None) -> Iterator[Mapping[str, float]]:
    """Ray for as long as the block runs; yields the cluster's resources, such as {"CPU": 8.0, "GPU": 1.0}.

    Joins the cluster that RAY_ADDRESS names, else starts one on this machine with `cpus` slots (default: its
    cores). A cluster of our own asks for a token that nobody else has, so that other users of the machine cannot
    run code in it. Raises ClusterError if the named cluster does not answer.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray

    own = {} if address else dict(num_cpus=cpus or len(os.sched_getaffinity(0)), include_dashboard=False)
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR", **own)
    except (ConnectionError, ValueError) as error:
        raise ClusterError(f"no Ray cluster answers at {address}: {error}") from error
    try:
        yield ray.cluster_resources()
    finally:
        ray.shutdown()
