"""An elastic group on a real Ray whose cores another program uses."""

import threading
import time
from pathlib import Path

import pytest
import torch.distributed as dist

import cluster.worker_group
from benchmarks.harness.processes import wait_for
from cluster.heartbeat import current
from cluster.job import Job
from cluster.retry import Preempted
from cluster.scheduler import run_on_ray
from cluster.session import session
from cluster.worker_group import run_worker_group


def elastic(folder: Path) -> int:
    cluster.worker_group.START_TIMEOUT_S, cluster.worker_group.SCALE_UP_AFTER_S = 2.0, 0.5
    return run_worker_group(work, folder, workers=(1, 2), gpu=False, name="group", logs=folder / "logs", timeout=120)


def work(folder: Path, device: str) -> int:
    """Alone until it is told to leave."""
    (folder / f"workers-{dist.get_world_size()}").touch()
    while dist.get_world_size() == 1:
        if current().stop_requested:
            raise Preempted("told to leave")
        time.sleep(0.1)
    return dist.get_world_size()


def other(folder: Path) -> None:
    """Another program's, which uses a core until it is told to end."""
    (folder / "other").touch()
    wait_for((folder / "end").exists, 1800, "the end")


@pytest.mark.faults
def test_a_group_begins_with_the_room_there_is_and_grows_with_it(tmp_path):
    """In one attempt, though the cluster counts two cores from the beginning."""
    with session(cpus=2):
        import ray

        ended = ray.remote(other).remote(tmp_path)
        wait_for((tmp_path / "other").exists, 300, "another program")
        told, job = [], Job("group", elastic, (tmp_path,), scale_up=2, starts_workers=True)
        queue = threading.Thread(target=lambda: told.extend(run_on_ray([job])), daemon=True)
        queue.start()
        wait_for((tmp_path / "workers-1").exists, 600, "one worker")
        assert not (tmp_path / "workers-2").exists()
        (tmp_path / "end").touch()
        ray.get(ended)
        queue.join(600)
    assert [(type(one).__name__, one.value, one.error) for one in told] == [("Outcome", 2, None)]
