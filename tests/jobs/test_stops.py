"""What a training does that is told to leave, or has no room to write."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command import ROOT, environment


def command(shapes: Path, storage: Path, *more) -> list[str]:
    arguments = ["pretrain", "jigsaw", "--data", shapes, "--size", 32, "--batch", 20, "--steps", 60, "--tracking",
                 "off", "--storage", storage, *more]  # fmt: skip
    return [sys.executable, "-m", "jobs.cli", *map(str, arguments)]


def digest(storage: Path) -> str:
    (path,) = storage.glob("*/pretrain/*/encoder.json")
    return json.loads(path.read_text())["digest"]


def test_sigterm_saves_then_leaves(tilespin, shapes, tmp_path):
    """A notice that the machine is wanted back: no step is lost, and the weights are those of a run left alone."""
    driver = subprocess.Popen(command(shapes, tmp_path / "told", "--checkpoint-every", "1h"), cwd=ROOT,
                              env=environment(), stderr=subprocess.PIPE, text=True)  # fmt: skip
    while driver.poll() is None and not list(tmp_path.glob("told/*/pretrain/*/metrics.jsonl")):
        time.sleep(0.02)
    driver.send_signal(signal.SIGTERM)
    _, said = driver.communicate(timeout=60)
    assert driver.returncode == 143 and "the same command continues" in said
    (saved,) = tmp_path.glob("told/*/pretrain/*/checkpoints/step-*.json")
    subprocess.run(command(shapes, tmp_path / "told"), cwd=ROOT, env=environment(), check=True)
    (restart,) = (row for row in map(json.loads, next(tmp_path.glob("told/*/pretrain/*/metrics.jsonl")).open())
                  if "restart" in row)  # fmt: skip
    assert restart["step"] == json.loads(saved.read_text())["step"] > 0
    subprocess.run(command(shapes, tmp_path / "alone"), cwd=ROOT, env=environment(), check=True)
    assert digest(tmp_path / "told") == digest(tmp_path / "alone")


@pytest.fixture
def small_disk(tmp_path):
    """A file system with room for a checkpoint or two."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=7m", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a small file system")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_is_one_clear_line_and_costs_nothing(shapes, small_disk):
    """What was saved before stays good, and once there is room the same command continues from it."""
    arguments = command(shapes, small_disk, "--checkpoint-every", 10, "--keep", 9)
    run = dict(cwd=ROOT, env=environment(), capture_output=True, text=True)
    full = subprocess.run(arguments, **run)
    assert full.returncode == 1 and "no room left" in full.stderr and "Traceback" not in full.stderr
    kept = sorted(small_disk.glob("*/pretrain/*/checkpoints/step-*.json"))
    assert kept
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    assert subprocess.run(arguments, **run).returncode == 0
    (restart,) = (row for row in map(json.loads, next(small_disk.glob("*/pretrain/*/metrics.jsonl")).open())
                  if "restart" in row)  # fmt: skip
    assert restart["step"] == json.loads(kept[-1].read_text())["step"]
