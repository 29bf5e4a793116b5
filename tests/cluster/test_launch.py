"""Training on several workers through Ray Train."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command import ROOT, environment


def described(storage: Path) -> dict:
    (path,) = storage.glob("*/pretrain/*/encoder.json")
    return json.loads(path.read_text())


def losses(storage: Path) -> list[float]:
    (path,) = storage.glob("*/pretrain/*/metrics.jsonl")
    return [row["loss"] for row in map(json.loads, path.read_text().splitlines()) if "loss" in row]


def arguments(shapes: Path, storage: Path, workers: int) -> list:
    return ["pretrain", "rotnet", "--data", shapes, "--size", 32, "--encoder", "convnet-plain", "--batch", 15,
            "--steps", 300, "--lr", 0.02, "--checkpoint-every", 10, "--threads", 1, "--tracking", "off",
            "--workers", workers, "--storage", storage]  # fmt: skip


def workers_of(driver: int) -> list[int]:
    """Processes of Ray Train's workers, found below the driver by their names."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()[1:]]
    parents = {int(pid): int(parent) for pid, parent, _ in rows}

    def below(pid: int) -> bool:
        while pid in parents:
            if pid == driver:
                return True
            pid = parents[pid]
        return False

    return [int(pid) for pid, _, name in rows if "RayTrainWorker" in name and below(int(pid))]


def test_two_workers_train_as_one_and_survive_a_kill(tilespin, shapes, tmp_path):
    """Two workers, one of them killed in mid-run: the losses are those of one worker that was left alone."""
    tilespin(*arguments(shapes, tmp_path / "one", 0))
    command = [sys.executable, "-m", "jobs.cli", *map(str, arguments(shapes, tmp_path / "two", 2))]
    driver = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    killed = None
    try:
        while driver.poll() is None and killed is None:
            if list(tmp_path.glob("two/*/pretrain/*/checkpoints/*.json")):
                killed = max(workers_of(driver.pid), default=None)
                if killed:
                    os.kill(killed, signal.SIGKILL)
            time.sleep(0.02)
        said = driver.communicate(timeout=300)[0].decode()
    finally:
        driver.kill()
    assert driver.returncode == 0, said
    assert killed, "the run ended before a worker could be killed"
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    assert described(tmp_path / "two")["run"] == described(tmp_path / "one")["run"]
    assert described(tmp_path / "two")["steps"] == 300
