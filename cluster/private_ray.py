"""All that this package uses of Ray that Ray does not promise to keep: why, and in one place.

Each function has a test of its own against a real cluster, and pyproject.toml bounds Ray's version from above, so that
a newer Ray is tried before anyone gets it.
"""

from collections.abc import Mapping


def draining_nodes() -> set[str]:
    """Returns the ids of the machines that Ray expects to go soon; no public function tells."""
    from ray._private.state import state

    return set(state.get_draining_nodes() or {})


def free_resources() -> Mapping[str, Mapping[str, float]]:
    """Returns what nobody uses of each machine's resources, by its id; the public functions only tell their sum."""
    from ray._private.state import available_resources_per_node

    return available_resources_per_node()


def resolve_address(address: str) -> str | None:
    """Returns the HOST:PORT of a cluster's head as Ray itself finds it, without joining the cluster.

    Args:
        address: "HOST:PORT", or "auto" for a cluster that runs on this machine.

    Raises:
        ConnectionError: If no cluster is known on this machine.
        ValueError: If it is no address.
    """
    from ray._private.services import canonicalize_bootstrap_address

    return canonicalize_bootstrap_address(address)


def call_head(host_port: str, timeout: float) -> None:
    """Asks the head of a cluster for the cluster's id, with this user's token; `ray.init` would try for minutes.

    Args:
        host_port: The head's HOST:PORT.
        timeout: Seconds to wait for its answer.

    Raises:
        grpc.RpcError: If it does not answer, or refuses.
        ray.exceptions.AuthenticationError: If a token is needed here and there is none.
    """
    import grpc
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated.gcs_service_pb2 import (
        GetClusterIdRequest,  # pyright: ignore[reportAttributeAccessIssue] made when the module is imported
    )
    from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub

    channel = init_grpc_channel(host_port)
    assert isinstance(channel, grpc.Channel)  # the other kind, of grpc.aio, has to be asked for
    with channel:
        NodeInfoGcsServiceStub(channel).GetClusterId(GetClusterIdRequest(), timeout=timeout)


def silence_raylet() -> None:
    """Keeps from the terminal what the raylet says of each process that died; no setting does that alone."""
    from ray._private import worker

    worker.print_to_stdstream = lambda *_, **__: None


def is_train_error(error: Exception) -> bool:
    """Returns whether an error of a worker is Ray Train's own, such as a failed health check."""
    from ray.train.v2._internal.exceptions import RayTrainError

    return isinstance(error, RayTrainError)


def is_start_timeout(error: object) -> bool:
    """Returns whether an error says that Ray Train's workers waited for resources in vain."""
    from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

    return isinstance(error, WorkerGroupStartupTimeoutError)
