"""What a training does that is told to leave, or has no room to write."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support.command import ROOT, environment, forked, run_forked
from support.wandb_server import Server, sync

from cluster.heartbeat import Heartbeat, sending_heartbeats
from cluster.retry import Preempted
from jobs.config.recipe import PretrainConfig
from jobs.config.runtime import RuntimeConfig
from jobs.pretraining.run import prepare_training
from jobs.pretraining.worker import run_training
from jobs.study.folder import Study
from ssl_core.memory_bank import MemoryOptions
from ssl_core.storage.records import EncoderRecord
from ssl_core.tasks.pirl import PIRL

pytestmark = pytest.mark.slow


def arguments(shapes: Path, storage: Path, *more, task: str = "jigsaw") -> list:
    return [
        "pretrain",
        task,
        "--data",
        shapes,
        "--size",
        32,
        "--batch",
        20,
        "--steps",
        120,
        "--wandb",
        "off",
        "--storage",
        storage,
        *more,
    ]


def encoder(storage: Path) -> EncoderRecord:
    (path,) = storage.glob("*/pretrain/*/encoder.json")
    return EncoderRecord.read(path)


def rows(storage: Path, kind: str) -> list[dict]:
    (path,) = storage.glob("*/pretrain/*/metrics.jsonl")
    return [row for row in map(json.loads, path.read_text().splitlines()) if kind in row]


def checkpoints(storage: Path) -> set[Path]:
    return set(storage.glob("*/pretrain/*/checkpoints/step-*.json"))


@pytest.mark.network
def test_a_run_that_is_killed_and_told_to_leave_ends_as_one_left_alone(shapes, tmp_path):
    """SIGKILL, the same command again, SIGTERM, again, Ctrl-C, again: weights and rows are bit for bit those of a run
    that nothing happened to, of a task with a teacher, and W&B has each row once. SIGTERM and Ctrl-C cost no step."""
    storage = tmp_path / "stopped"
    mine = arguments(shapes, storage, "--checkpoint-every", 7, "--wandb", "offline", task="byol")
    left_at = []
    for new, sent, code in ((2, signal.SIGKILL, -signal.SIGKILL), (1, signal.SIGTERM, 143), (1, signal.SIGINT, 130)):
        seen = checkpoints(storage)
        with forked(*mine) as driver:
            while driver.poll() is None and len(checkpoints(storage) - seen) < new:
                time.sleep(0.02)
            driver.send_signal(sent)
            done = driver.wait()
        assert done.returncode == code, f"the run ended before it could be stopped: {done.stderr}"
        left_at.append(max(json.loads(path.read_text())["step"] for path in checkpoints(storage)))
    assert "the same command continues" in done.stderr
    for words in (mine, arguments(shapes, tmp_path / "alone", task="byol")):
        run_forked(*words).check_returncode()
    stopped, alone = (encoder(tmp_path / name) for name in ("stopped", "alone"))
    assert stopped.digest == alone.digest and (stopped.training.restarts, alone.training.restarts) == (3, 0)
    trained = rows(storage, "loss")
    for name in ("step", "loss", "cosine", "grad_norm"):
        assert [row[name] for row in trained] == [row[name] for row in rows(tmp_path / "alone", "loss")]
    marks = rows(storage, "restart")
    assert [row["restart"] for row in marks] == [1, 2, 3] and marks[0]["step"] % 7 == 0
    assert [row["step"] for row in marks] == left_at and marks[0]["cause"] == "stopped; started again"
    with Server() as server:
        (study,) = storage.iterdir()
        sync(server, study)
        (tracked,) = server.runs.values()
    for name in ("step", "loss", "cosine", "images"):
        assert tracked.column(f"train/{name}") == [row[name] for row in trained]
    assert tracked.summary["restarts"] == 3 and tracked.exit_code == 0 and len(tracked.column("samples")) == 1
    assert (
        server.artifacts["encoder.safetensors"] == next(storage.glob("*/pretrain/*/encoder.safetensors")).read_bytes()
    )


@pytest.mark.ray
def test_a_terminal_that_closes_costs_a_run_on_ray_nothing(shapes, tmp_path):
    """All processes of its group are told so, several times, and what it says from then on goes nowhere."""
    terminal, end = os.openpty()
    words = arguments(shapes, tmp_path, "--steps", 100_000, "--checkpoint-every", 100_000, "--workers", 1)
    command = [sys.executable, "-m", "jobs.cli", *map(str, words)]
    driver = subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdin=end, stdout=end, stderr=end, start_new_session=True
    )
    os.close(end)
    threading.Thread(target=_read_all, args=(terminal,), daemon=True).start()
    while driver.poll() is None and not list(tmp_path.glob("*/pretrain/*/metrics.jsonl")):
        time.sleep(0.05)
    os.killpg(driver.pid, signal.SIGHUP)
    os.killpg(driver.pid, signal.SIGHUP)
    assert driver.wait(900) == 129
    assert len(checkpoints(tmp_path)) == 1, "long before one is due"


def _read_all(terminal: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(terminal, 4096):
            pass


class LeavesAt(Heartbeat):
    """Told to leave once `last` steps are done."""

    last = 0

    def beat(self, step: int) -> None:
        super().beat(step)
        self.stop_requested = step == self.last


def test_a_memory_outlasts_being_told_to_leave(shapes, tmp_path):
    """PIRL, stopped twice after the epoch that fills its memory, ends with the weights of a run left alone."""
    digests = {}
    for name, stops in (("alone", ()), ("stopped", (9, 13))):
        task = PIRL.Config(batch=40, transform="both", memory=MemoryOptions(memory_warmup=1))
        study = Study.open(str(tmp_path), name)
        study.describe()
        training = prepare_training(
            PretrainConfig(task=task, data=str(shapes), size=32, steps=16), study, RuntimeConfig(wandb="off")
        )
        for stop in stops:
            pulse = LeavesAt()
            pulse.last = stop
            with sending_heartbeats(pulse), pytest.raises(Preempted, match=f"saved at step {stop}"):
                run_training(training, "cpu")
        trained = run_training(training, "cpu")
        digests[name] = trained.digest
        assert trained.training.restarts == len(stops)
    assert digests["stopped"] == digests["alone"]


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
    words = arguments(shapes, small_disk, "--checkpoint-every", 10, "--keep-last", 9)
    full = run_forked(*words)
    assert full.returncode == 1 and "no room left" in full.stderr and "Traceback" not in full.stderr
    kept = max(json.loads(path.read_text())["step"] for path in checkpoints(small_disk))
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    assert run_forked(*words).returncode == 0
    assert [row["step"] for row in rows(small_disk, "restart")] == [kept]
