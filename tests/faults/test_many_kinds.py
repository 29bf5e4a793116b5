"""A study of every kind of combination on Ray, whose driver is killed twice: each result is there once."""

import json
from collections import Counter
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from support.driver import Driver
from support.study_audit import check_tracked, results

from benchmarks.harness.processes import wait_for

STUDY = """
name = "many"
steps = [24]
seeds = 2
encoders = ["convnet", "resnet18"]
init = ["random", "timm:resnet18={weights}"]
transfer = ["{shapes}", {{ data = "{shapes}", size = 48, protocols = ["knn"] }}, "{other}"]
tasks = [{{ name = "rotnet", batch = 16 }}, {{ name = "jigsaw", batch = 16 }}, {{ name = "pirl", batch = 16 }}]

[pretrain]
data = "{shapes}"
size = 32

[evaluation]
protocols = ["linear", "knn"]
num_labels = 120

[runtime]
workers = "2"
checkpoint_every = "10"
decode_threads = 1
wandb = "offline"
"""
STARTS = 3  # a convnet at random, a resnet18 at random and from weights
TRAINED = (3 + 1) * STARTS * 2  # three tasks and the reference, two seeds


@pytest.fixture
def study(shapes, tmp_path) -> Path:
    """Its file, with another dataset of two of the classes."""
    other = tmp_path / "other"
    other.mkdir()
    for name in ("rings", "rows"):
        (other / name).symlink_to(shapes / name)
    torch.manual_seed(3)
    safetensors.torch.save_file(timm.create_model("resnet18").state_dict(), tmp_path / "w.safetensors")
    file = tmp_path / "many.toml"
    file.write_text(STUDY.format(shapes=shapes, other=other, weights=tmp_path / "w.safetensors"))
    return file


@pytest.mark.faults
def test_killed_twice_each_result_is_there_once(study, tmp_path):
    root = tmp_path / "runs" / "many"
    moments = (
        lambda: len(list(root.glob("pretrain/*/encoder.json"))) >= 3,
        lambda: len(list(root.glob("evaluate/*/*.json"))) >= 10,
    )
    for moment in moments:
        with Driver("study", study, "--storage", root.parent) as driver:
            wait_for(lambda moment=moment, driver=driver: moment() or not driver.running(), 1800, "the moment to kill")
            assert driver.running(), driver.said()
            driver.kill()
    with Driver("study", study, "--storage", root.parent) as driver:
        assert driver.wait(3600) == 0, driver.said()
    found = results(root)
    what = ("task", "encoder", "pretrain_run", "steps", "dataset", "protocol", "metric")
    assert max(Counter(tuple(row[key] for key in what) for row in found).values()) == 1
    trained = [row for row in found if row["pretrain_run"] and row["metric"] == "top1"]
    recipes = {(row["pretrain_run"], row["dataset"], row["protocol"]) for row in trained}
    # a row has both seeds; on the second dataset there is one protocol
    assert len(recipes) == len(trained) == TRAINED // 2 * (2 + 1 + 2)
    records = [json.loads(path.read_text()) for path in root.glob("evaluate/*/*.json")]
    assert len(
        {
            (
                one["digest"],
                one["dataset"]["digest"],
                one["encoder"]["size"],
                one["encoder"]["normalization"],
                one["protocol"]["name"],
            )
            for one in records
        }
    ) == len(records)
    check_tracked(root, root)
    assert len(list(root.glob("tracked/*.json"))) >= TRAINED + 1 + 1  # the start and raw pixels, and random ones
