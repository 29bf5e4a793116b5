"""A study of images without labels: what can be said of its encoders, and what cannot."""

import csv

import pytest

pytestmark = pytest.mark.slow


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
