"""Through Ray, a kill, another number of workers and another loader: the steps that count show each image exactly once
an epoch."""

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.command import Forked, environment, forked

from ssl_core.data.loaders.select import dali_installed

pytestmark = pytest.mark.ray

BATCH, STEPS = 15, 60
PATIENCE = 900  # seconds: on a new machine everything is imported and compiled for the first time
RECORDED = '''"""Recorded: writes down which images each step was trained on."""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from cluster.heartbeat import current
from ssl_core.task import Task, TaskConfig
from ssl_core.train import rank_and_world_size


class Recorded(Task):
    @dataclass(frozen=True, kw_only=True)
    class Config(TaskConfig):
        """Write down which images each step was trained on."""

    def __init__(self, config, encoder, data):
        super().__init__(config, encoder, data)
        self.head = nn.Linear(encoder.widths[-1], 1)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))  # kept in checkpoints, as weights are

    def make_batch(self, batch, bits, format):
        self.met = {"ids": batch.ids.tolist(), "epochs": batch.epochs.tolist()}
        return batch.images.permute(0, 3, 1, 2).float() / 255, batch.ids

    def forward(self, encoder, inputs):
        return self.head(encoder(inputs)[-1].mean((2, 3)))

    def loss(self, predictions, targets):
        return predictions.flatten() ** 2

    def after_step(self, encoder, outcomes, progress):
        rank, world = rank_and_world_size()
        row = {"step": int(self.steps), "rank": rank, "world": world, "time": time.time_ns(), **self.met}
        with open(Path(os.environ["RECORDS"]) / f"{os.getpid()}.jsonl", "a") as file:
            file.write(json.dumps(row) + "\\n")
        self.steps += 1
        time.sleep(0.05)  # so that there is time to kill somebody
        # two never end this run, only the one that continues it does
        while world == 2 and self.steps >= 45 and not current().stop_requested:
            time.sleep(0.05)

    def visualize(self, inputs, predictions, targets):
        return [(torch.zeros(8, 8, 3, dtype=torch.uint8), "an image")]
'''


@pytest.fixture
def folder(tmp_path) -> Path:
    """Holds recorded.py with the task `recorded`, and room for records."""
    (tmp_path / "recorded.py").write_text(RECORDED)
    (tmp_path / "records").mkdir()
    return tmp_path


@pytest.fixture
def jpegs(shapes, tmp_path) -> Path:
    """The images of `shapes` in the format that DALI decodes."""
    for path in shapes.glob("*/*.png"):
        place = tmp_path / "jpegs" / path.relative_to(shapes).with_suffix(".jpg")
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).save(place)
    return tmp_path / "jpegs"


def training(folder: Path, images: Path, workers: int, loader: str) -> AbstractContextManager[Forked]:
    arguments = [
        "pretrain",
        "recorded",
        "--plugin",
        folder / "recorded.py",
        "--data",
        images,
        "--size",
        32,
        "--batch",
        BATCH,
        "--steps",
        STEPS,
        "--lr",
        0.001,
        "--checkpoint-every",
        20,
        "--decode-threads",
        1,
        "--wandb",
        "off",
        "--workers",
        workers,
        "--storage",
        folder / "runs",
        "--loader",
        loader,
    ]
    return forked(*arguments, env=environment() | {"RECORDS": str(folder / "records")})


def rows_of(path: Path) -> list[dict]:
    """Whole lines: the last one may be in the middle of being written, or never have been finished."""
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def records(folder: Path) -> dict[int, list[dict]]:
    """What each process has written, by its process id."""
    return {int(path.stem): rows_of(path) for path in (folder / "records").glob("*.jsonl")}


def wait_for(process: Forked, met: Callable[[], object]):
    """What `met` returns, as soon as that is something."""
    end = time.monotonic() + PATIENCE
    while not (found := met()) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    if not found:
        process.send_signal(signal.SIGKILL)
        raise AssertionError(process.wait())
    return found


def second_worker_at(folder: Path, step: int, but: int | None = None) -> int | None:
    """The process of rank 1, another one than `but`, as soon as it has taken this step."""
    return next(
        (
            pid
            for pid, rows in records(folder).items()
            if rows[-1:] and rows[-1]["rank"] and rows[-1]["step"] >= step and pid != but
        ),
        None,
    )


def surviving(folder: Path) -> list[list[dict]]:
    """For each step the rows, in order of rank, of those who took it last."""
    last: dict[int, dict[int, dict]] = {}
    for row in sorted((row for rows in records(folder).values() for row in rows), key=lambda row: row["time"]):
        taken = last.setdefault(row["step"], {})
        if any(other["world"] != row["world"] for other in taken.values()):
            taken.clear()
        taken[row["rank"]] = row
    return [[taken[rank] for rank in sorted(taken)] for _, taken in sorted(last.items())]


def test_each_image_once_an_epoch_through_a_kill_and_another_number_of_workers(folder, jpegs):
    with training(folder, jpegs, workers=2, loader="dali" if dali_installed() else "cpu") as driver:
        killed = wait_for(driver, lambda: second_worker_at(folder, 22))  # an epoch has 12.8 steps
        os.kill(killed, signal.SIGKILL)
        wait_for(driver, lambda: second_worker_at(folder, 22, but=killed))
        driver.send_signal(signal.SIGINT)
        assert "attempt 2" in driver.wait(PATIENCE).stderr
    with training(folder, jpegs, workers=0, loader="cpu") as alone:
        alone.wait(PATIENCE).check_returncode()
    restarts = [
        row for path in folder.glob("runs/*/pretrain/*/metrics.jsonl") for row in rows_of(path) if "restart" in row
    ]
    assert [row["workers"] for row in restarts] == [2, 1] and restarts[0]["step"] == 20
    assert 20 <= restarts[1]["step"] <= 46, "after Ctrl-C it saved how far it was"
    assert restarts[0]["cause"].startswith("ActorDiedError") or "gloo" in restarts[0]["cause"], restarts
    taken = surviving(folder)
    assert len(taken) == STEPS and len(records(folder)) == 5, "two workers, two again, then one"
    assert {len(rows) for rows in taken} == {1, 2}
    assert sum(map(len, records(folder).values())) > sum(map(len, taken)), "some steps were taken again"
    for rows in taken:
        assert [row["rank"] for row in rows] == list(range(rows[0]["world"]))
    ids, epochs = (np.concatenate([row[name] for rows in taken for row in rows]) for name in ("ids", "epochs"))
    n = int(np.sum(epochs == 0))
    assert n == 192 and np.array_equal(epochs, np.arange(STEPS * BATCH) // n)
    for epoch in range(STEPS * BATCH // n):
        assert np.array_equal(np.sort(ids[epochs == epoch]), np.arange(n))
    assert np.bincount(ids[epochs == epochs[-1]]).max() == 1
