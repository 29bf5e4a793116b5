"""What becomes of a training on Ray that hangs, freezes, fails or is told to leave."""

import json
import os
import signal
import time
from pathlib import Path
from unittest import mock

import pytest
import torch

from benchmarks.harness.processes import wait_for
from cluster.heartbeat import current
from cluster.job import Job, Retrying
from cluster.scheduler import run_on_ray
from cluster.session import session
from jobs.config.recipe import PretrainConfig
from jobs.config.runtime import RuntimeConfig
from jobs.pretraining.run import Training, prepare_training
from jobs.pretraining.worker import run_training
from jobs.study.folder import Study
from ssl_core.storage.records import EncoderRecord
from ssl_core.tasks.rotnet import RotNet

pytestmark = pytest.mark.ray

STEPS = 12


@pytest.fixture(scope="module")
def ray_session():
    with session(cpus=2):
        yield


@pytest.fixture
def one(shapes, tmp_path) -> Training:
    """A run of twelve steps, with a checkpoint after every fourth."""
    recipe = PretrainConfig(task=RotNet.Config(batch=16), data=str(shapes), size=32, steps=STEPS)
    where = RuntimeConfig(checkpoint_every="4", step_timeout="8s", wandb="off", decode_threads=1)
    study = Study.open(str(tmp_path), "study")
    study.describe()
    return prepare_training(recipe, study, where)


def disturbed(one: Training, device: str, marker: str | None, how) -> EncoderRecord:
    """Trains it, but calls `how` after step 6: once, if there is to be a `marker` of it, else always."""
    real = RotNet.loss

    def loss(self, *args):
        if current().step == 6 and not (marker and Path(marker).exists()):
            if marker:
                Path(marker).touch()
            how()
        return real(self, *args)

    with mock.patch.object(RotNet, "loss", loss):
        return run_training(one, device)


def hang() -> None:
    time.sleep(1000)


def until_told() -> None:
    wait_for(lambda: current().stop_requested, 120, "to be told to leave")


def freeze() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def too_little_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.\nMore.")


def own_error() -> None:
    raise ValueError("wrong at 0x7f01")


def events(one: Training, how, marker: Path | None) -> list:
    return list(run_on_ray([Job(one.name, disturbed, (one, "cpu", marker and str(marker), how))]))


def rows(one: Training, kind: str) -> list[dict]:
    return [row for row in map(json.loads, (one.folder / "metrics.jsonl").read_text().splitlines()) if kind in row]


def test_a_hung_worker_leaves_its_stack_and_is_started_again(ray_session, one, tmp_path):
    again, outcome = events(one, hang, tmp_path / "marker")
    assert isinstance(again, Retrying) and again.fault.kind == "system" and again.fault.step == 6
    assert outcome.error is None and outcome.value.training.steps == STEPS and outcome.value.training.restarts == 1
    (stacks,) = (one.root / "logs").glob("hung-*-worker0-*.txt")
    assert "in hang" in stacks.read_text() and "no progress for 8 s after step 6" in stacks.read_text()
    assert "no progress" in (one.root / "logs" / "warnings.log").read_text()
    (restart,) = rows(one, "restart")
    assert restart["step"] == 4 and "WorkerCrashedError" in restart["cause"] and "at step 6" in restart["cause"]


def test_a_frozen_process_is_killed_from_outside(ray_session, one, tmp_path, monkeypatch):
    """Stopped as a whole it cannot watch itself; the driver misses its signs of life."""
    monkeypatch.setattr("cluster.silent.SILENT_S", 4.0)
    again, outcome = events(one, freeze, tmp_path / "marker")
    assert again.fault.kind == "system" and "no sign of life" in again.fault.cause
    assert outcome.error is None and outcome.value.training.steps == STEPS


def test_too_little_gpu_memory_ends_with_advice(ray_session, one):
    """Not at once: a process that was killed may have held the memory."""
    again, outcome = events(one, too_little_memory, None)
    assert isinstance(again, Retrying)
    assert (
        "larger --grad-accumulation" in outcome.reason
        and "the same error twice" in outcome.reason
        and "\n" not in outcome.reason
    )
    assert "Tried to allocate 20 GiB" in outcome.error


def test_an_error_at_the_same_step_is_tried_once_more(ray_session, one):
    again, outcome = events(one, own_error, None)
    assert isinstance(again, Retrying) and again.fault.kind == "program" and again.decision.wait == 0
    assert outcome.reason == "the same error twice: ValueError: wrong at 0x7f01 (at step 6)"
    assert "in own_error" in outcome.error, "its traceback"


def test_told_to_leave_it_saves_first(ray_session, one, tmp_path):
    """As a driver that got SIGTERM tells its jobs: what has not begun does not, and nothing is lost."""
    slow = Job(one.name, disturbed, (one, "cpu", str(tmp_path / "marker"), until_told))
    assert list(run_on_ray([slow, Job("next", print, needs=(one.name,))], (tmp_path / "marker").exists)) == []
    saved = max((one.folder / "checkpoints").glob("step-*.json"))
    assert json.loads(saved.read_text())["step"] == 7, "step 7 is the one during which it was told"
    assert run_training(one, "cpu").training.restarts == 1
    assert rows(one, "restart")[0]["step"] == 7
