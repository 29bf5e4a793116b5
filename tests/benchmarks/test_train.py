"""The benchmark of training steps: both ways make the same batch, and every row says what it should."""

import json
import sys
from unittest.mock import patch

import pytest
import torch

from benchmarks import train
from ssl_core.data.batch import Batch
from ssl_core.task import InputFormat


@pytest.fixture
def batch():
    images = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ids = torch.arange(4)
    return Batch(images, ids, torch.zeros_like(ids), torch.ones(4), ids)


@pytest.mark.slow
def test_prints_and_keeps_a_row_for_each_task_and_way(tmp_path, monkeypatch, capsys):
    words = [
        "--encoder",
        "convnet",
        "--size",
        "32",
        "--batch",
        "4",
        "--steps",
        "2",
        "--device",
        "cpu",
        "--into",
        str(tmp_path),
    ]
    monkeypatch.setattr(sys, "argv", ["train", *words])
    train.main()
    result = json.loads(next(tmp_path.glob("*-train-convnet-32-*.json")).read_text())
    assert [(row["task"], row["batch_from"]) for row in result["steps_of"]] == [
        (task, way) for task in train.TASKS for way in train.WAYS
    ]
    for row in result["steps_of"]:
        assert 0 < row["batch_ms"] < row["step_ms"] and 0 < row["batch_share"] < 1
        assert row["step_ms_p20"] <= row["step_ms"] <= row["step_ms_p80"]
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(result["steps_of"]) + 1


@pytest.mark.parametrize("task", train.TASKS)
def test_both_ways_make_the_same_batch(task, batch):
    name, changes = train.TASKS[task]
    model, format = train.pretext(name, changes, "convnet", 4, 32), InputFormat(train.MEAN, train.STD)
    train.same_batch(model, batch, format)
    make, other = model.task.make_batch, batch._replace(images=255 - batch.images)
    wrong = patch.object(model.task, "make_batch", lambda _, *rest: make(other, *rest))
    with patch.dict(train.WAYS, {"plain torch": lambda: wrong}), pytest.raises(AssertionError):
        train.same_batch(model, batch, format)
