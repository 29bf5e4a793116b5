"""Asks a running cluster for its resources and for machines that are about to go, and kills processes on its
machines."""

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.private_ray import draining_nodes, free_resources

REFRESH_S = 1.0  # seconds that an answer is good for


class ClusterResources:
    """Answers questions about the cluster of this session as it is now: machines come and go."""

    def __init__(self) -> None:
        self.asked: float = 0
        self.total: Mapping[str, float] = {}

    def resources(self) -> Mapping[str, float]:
        """Returns the cluster's total resources, such as {"CPU": 8.0}, at most REFRESH_S seconds old."""
        import ray

        if time.monotonic() - self.asked > REFRESH_S:
            self.asked, self.total = time.monotonic(), ray.cluster_resources()
        return self.total

    def object_store(self) -> float:
        """Returns the bytes of all machines' object stores together."""
        return self.resources().get("object_store_memory", float("inf"))

    def fits(self, cpus: float, gpus: float, running: list[tuple[float, float]]) -> bool:
        """Returns whether a job fits beside those that run.

        Args:
            cpus: CPUs that the job needs.
            gpus: GPUs that the job needs.
            running: CPUs and GPUs of each job that runs.
        """
        total = self.resources()
        cpus, gpus = cpus + sum(c for c, _ in running), gpus + sum(g for _, g in running)
        return cpus <= total.get("CPU", 0) and gpus <= total.get("GPU", 0)

    def __str__(self) -> str:
        total = self.resources()
        return f"{total.get('CPU', 0):g} CPUs and {total.get('GPU', 0):g} GPUs"

    def avoid_node(self, node: str) -> dict[str, Any]:
        """Returns task options that keep a task off `node`, as long as another machine has resources.

        The task may still go to `node`, since the other machines may be busy for days.
        """
        if not node:
            return {"scheduling_strategy": "SPREAD"}
        name = "ray.io/node-id"
        return {"label_selector": {name: f"!{node}"}, "fallback_strategy": [{"label_selector": {name: node}}]}

    def alive(self) -> set[str]:
        """Returns the ids of the machines that Ray takes for alive."""
        import ray

        return {node["NodeID"] for node in ray.nodes() if node["Alive"]}

    def draining(self) -> set[str]:
        """Returns the ids of the machines that Ray expects to go soon, as spot instances do."""
        return draining_nodes()

    def is_available(self, result: Any) -> bool:
        """Returns whether any machine has what the reference `result` stands for."""
        from ray.experimental import get_object_locations

        return bool(get_object_locations([result]).get(result, {}).get("node_ids"))

    def kill(self, node: str, pid: int, only_stopped: bool) -> Any:
        """Kills a process on one of the machines, which Ray itself can only ask of a process that still answers.

        Args:
            node: The id of the machine.
            pid: The process on that machine.
            only_stopped: Whether to kill it only if it is stopped, as by SIGSTOP.

        Returns:
            A Ray reference to whether it was killed.
        """
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
        once = ray.remote(_kill).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
        return once.remote(pid, only_stopped)


def per_node(kind: str, free: bool = False) -> list[float]:
    """Returns how many of a resource each machine has. Machines that are dead or about to go are left out.

    Args:
        kind: "CPU" or "GPU".
        free: Whether to count only those that nobody uses.
    """
    import ray

    draining = draining_nodes()
    nodes = {one["NodeID"]: one["Resources"] for one in ray.nodes() if one["Alive"] and one["NodeID"] not in draining}
    if free:
        available = free_resources()
        nodes = {node: available.get(node, {}) for node in nodes}
    return [resources.get(kind, 0) for resources in nodes.values()]


def _kill(pid: int, only_stopped: bool) -> bool:
    if only_stopped:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        if state not in "Tt":
            return False
    os.kill(pid, signal.SIGKILL)
    return True


def start_heartbeat_registry() -> Any:
    """Starts a HeartbeatRegistry as a Ray actor on this machine, so that it lives as long as the driver does."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from cluster.heartbeat import HeartbeatRegistry

    here = NodeAffinitySchedulingStrategy(node_id=ray.get_runtime_context().get_node_id(), soft=False)
    lasting = dict(max_restarts=-1, max_task_retries=-1)
    return ray.remote(HeartbeatRegistry).options(num_cpus=0, scheduling_strategy=here, **lasting).remote()
