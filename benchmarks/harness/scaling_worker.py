"""One side of benchmarks.scaling, started by Ray or torchrun: `python -m benchmarks.harness.scaling_worker JSON`."""

import json
import math
import os
import sys
from pathlib import Path
from unittest.mock import patch

import torch
import torch.distributed as dist

import cluster.silent
from benchmarks.harness.alternating import PATIENCE, Side, train_in_turns
from cluster.job import Job
from cluster.scheduler import run_on_ray
from cluster.session import session
from cluster.worker_group import run_worker_group


def by_ray(side: Side) -> None:
    """As jobs/execution/run.py has a cluster do it: a job in the queue that starts the group, watched by its pulse."""
    gpu = torch.cuda.is_available()
    together = side.workers > 1
    room = dict(cpus=side.workers, gpus=side.workers if gpu else 0, starts_workers=together)
    call, device = (_together, gpu) if together else (train_in_turns, "cuda" if gpu else "cpu")
    # a side is silent while others have their turns
    with patch.object(cluster.silent, "SILENT_S", math.inf), session(cpus=side.workers):
        for event in run_on_ray([Job(side.name, call, (side, device), **room)]):
            if getattr(event, "error", None) or hasattr(event, "fault"):
                raise RuntimeError(f"{side.name}: {event}")


def _together(side: Side, gpu: bool) -> dict:
    return run_worker_group(
        train_in_turns,
        side,
        workers=(side.workers, side.workers),
        gpu=gpu,
        name=side.name,
        logs=Path(side.folder) / "ray",
        timeout=PATIENCE.total_seconds(),
    )


def by_torchrun(side: Side) -> None:
    gpu, device = torch.cuda.is_available(), "cpu"
    if gpu:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    if side.workers > 1:
        dist.init_process_group("nccl" if gpu else "gloo", timeout=PATIENCE)
    train_in_turns(side, device)
    if side.workers > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    asked = Side(**json.loads(sys.argv[1]))
    (by_ray if asked.launcher == "ray" else by_torchrun)(asked)
