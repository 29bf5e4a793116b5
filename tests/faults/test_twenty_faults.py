"""Twenty faults of all kinds over one study in a store that fails too, and nobody at the keyboard."""

import os
import random
import time

import pytest
from support.fault_injector import KINDS, Siege
from support.store import FailingStore
from support.study_audit import check_same, check_tracked

from benchmarks.harness.environment import describe, keep
from benchmarks.harness.local_nodes import Machines

TIMES = {
    "worker killed": 3,
    "worker frozen": 1,
    "raylet killed": 3,
    "power cut": 2,
    "machine silent": 1,
    "machine drained": 2,
    "driver killed": 3,
    "driver told to leave": 1,
    "head lost": 1,
    "store busy": 2,
    "store silent": 1,
}
SEED = int(os.environ.get("FAULTS_SEED", "1"))
COUNT = int(os.environ.get("FAULTS_COUNT", "20"))
BUDGET = int(os.environ.get("FAULTS_BUDGET", "2500"))  # so much that the study outlasts the faults


def plan(seed: int) -> list[tuple[str, float]]:
    """(kind, seconds of work before it), in an order that depends on the seed alone."""
    assert set(TIMES) == set(KINDS)
    kinds, rng = [kind for kind, times in TIMES.items() for _ in range(times)], random.Random(seed)
    rng.shuffle(kinds)
    return [(kind, rng.uniform(1, 5)) for kind in kinds]


@pytest.mark.faults
def test_a_study_outlives_twenty_faults(tilespin, shapes, tmp_path, monkeypatch):
    """Three pretext tasks and their ceiling on two machines: weights, rows and results are those of a study that was
    left alone, and W&B has each row once."""
    from upath import UPath

    monkeypatch.setenv("TILESPIN_CACHE", str(tmp_path / "cache"))
    study = ["study", "demo", "--data", shapes, "--size", 32, "--budget", BUDGET, "--decode-threads", 1]
    began = time.monotonic()
    tilespin(*study, "--storage", tmp_path, "--workers", 1, "--wandb", "off", timeout=1800)
    alone = round(time.monotonic() - began, 1)
    print(f"\nseed {SEED}; alone on one machine the study took {alone:.0f} s", flush=True)
    with FailingStore() as store:
        for name, value in store.environment().items():
            monkeypatch.setenv(name, value)
        files = store.files()
        files.mkdir("bucket")
        root = UPath("s3://bucket/runs/demo", **files.storage_options)
        with Machines(count=2, cpus=1) as machines:
            siege = Siege(
                machines,
                store,
                [
                    *study,
                    "--storage",
                    "s3://bucket/runs",
                    "--workers",
                    1,
                    "--checkpoint-every",
                    10,
                    "--wandb",
                    "offline",
                ],
                root,
                {},
                SEED,
            )
            try:
                for kind, pause in plan(SEED)[:COUNT]:
                    siege.strike(kind, pause)
                siege.end(1800)
            finally:
                siege.close()
                took = round(time.monotonic() - siege.began, 1)
                (tmp_path / "said.txt").write_text("\n--- typed again ---\n".join(d.said() for d in siege.drivers))
        check_same(root, tmp_path / "demo")
        files.get("bucket/runs/demo/wandb/", f"{tmp_path}/segments/wandb/", recursive=True)
        check_tracked(tmp_path / "segments", root)
    print(
        f"all is as without faults, after {took:.0f} s; the command was typed {len(siege.drivers)} times, "
        f"the store refused {store.refused} requests",
        flush=True,
    )
    if len(plan(SEED)) == COUNT:
        keep(
            "faults",
            {
                "machine": describe(),
                "seed": SEED,
                "seconds_alone": alone,
                "seconds": took,
                "typed": len(siege.drivers),
                "faults": siege.record(),
            },
        )
