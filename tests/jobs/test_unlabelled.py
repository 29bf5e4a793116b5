"""Images without labels: what they are trained on by, and what can be said of encoders without any labels."""

import csv

import pytest
from support.image_folders import put

from jobs.config.recipe import PretrainConfig
from ssl_core.tasks.rotnet import RotNet
from ssl_core.tasks.supervised import Supervised


def test_supervised_training_takes_the_labeled_images_and_pretext_tasks_all(tmp_path):
    put(tmp_path, *(f"train/{kind}/{i}.png" for kind in "ab" for i in range(5)), "test/a/0.png", "test/b/0.png")
    put(tmp_path, *(f"unlabeled/{i}.png" for i in range(10)))
    steps = {}
    for task in (Supervised, RotNet):
        asked = PretrainConfig(task=task.Config(batch=2), data=str(tmp_path), epochs=3)
        recipe = asked.resolved(asked.source(), "cpu")
        steps[task], images = recipe.steps, len(recipe.source().train)
        assert images == (10 if task is Supervised else 20)
    assert steps == {Supervised: 15, RotNet: 30}


@pytest.mark.slow
def test_a_flat_folder_is_judged_by_what_needs_no_labels(tilespin, photos, tmp_path):
    options = ["--size", 32, "--steps", 2, "--batch", 8, "--wandb", "off", "--storage", tmp_path, "--name", "one"]
    tilespin("pretrain", "rotnet", "--data", photos, *options)
    protocols = ("collapse", "invariance", "retrieval")
    done = tilespin("evaluate", tmp_path / "one", "--wandb", "off", "--protocols", *protocols)
    assert "rankme ↑" in done.stdout and "rotation ↓" in done.stdout and "top-1" not in done.stdout
    with open(tmp_path / "one" / "results.csv") as file:
        rows = list(csv.DictReader(file))
    found = {(row["task"], row["protocol"]) for row in rows}
    assert found == {(task, protocol) for task in ("raw-pixels", "random-init", "rotnet") for protocol in protocols}
    assert {row["metric"] for row in rows if row["protocol"] == "retrieval"} == {"similarity@8"}
    assert all(row["low"] == row["high"] == "" for row in rows)
    assert len(list(tmp_path.glob("one/evaluate/*/retrieval-*.png"))) == 3
    assert "<svg" in (tmp_path / "one" / "report.html").read_text()
