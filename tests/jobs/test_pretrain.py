"""`tilespin pretrain` as a user meets it: broken files, kills, divergence, a second driver."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load
from support.synthetic_images import suited

from jobs.commands.pretrain import main
from jobs.config.recipe import PretrainConfig
from jobs.config.runtime import RuntimeConfig
from jobs.pretraining.memory_advice import out_of_memory_advice
from jobs.pretraining.run import prepare_training
from jobs.study.folder import Study
from ssl_core.errors import UserError
from ssl_core.storage.records import EncoderRecord
from ssl_core.task import tasks

pytestmark = pytest.mark.slow


def encoder(storage: Path) -> EncoderRecord:
    (path,) = storage.glob("*/pretrain/*/encoder.json")
    return EncoderRecord.read(path)


def rows(storage: Path) -> list[dict]:
    (path,) = storage.glob("*/pretrain/*/metrics.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_flat_folder_with_broken_files(tilespin, photos, tmp_path):
    """Mixed sizes, unlabeled, smaller than a batch: it trains, and says how many files it skipped and which."""
    arguments = ["--data", photos, "--size", 48, "--steps", 4, "--batch", 50, "--storage", tmp_path]
    done = tilespin("pretrain", "rotnet", *arguments, "--wandb", "off")
    assert "3 files could not be decoded and were skipped" in done.stdout
    for name in ("truncated.jpg", "empty.jpg", "text.png"):
        assert done.stderr.count(name) == 1
    trained = encoder(tmp_path).training
    assert {Path(p).name for p in trained.skipped} == {"truncated.jpg", "empty.jpg", "text.png"}
    assert trained.images == 200
    assert all(0 < row["waited"] < 1 for row in rows(tmp_path)), "the share of the time spent waiting for data"
    assert rows(tmp_path)[-1]["step"] == 4
    assert rows(tmp_path)[-1]["grad_norm"] > 0
    assert 10**8 < rows(tmp_path)[-1]["peak_bytes"] <= encoder(tmp_path).training.peak_bytes < 10**11


def test_finished_run_is_not_trained_again(tilespin, shapes, tmp_path):
    arguments = ["pretrain", "rotnet", "--data", shapes, "--size", 32, "--steps", 3, "--wandb", "off", "--storage"]
    tilespin(*arguments, tmp_path)
    (path,) = tmp_path.glob("*/pretrain/*/encoder.safetensors")
    before = path.stat().st_mtime_ns
    tilespin(*arguments, tmp_path)
    assert path.stat().st_mtime_ns == before


@pytest.mark.parametrize("task", tasks())
def test_bf16_from_the_first_batch_to_the_pictures(shapes, tmp_path, task):
    """The precision that a GPU trains with: batches are made in it, and the encoder is left in fp32. In this process,
    since for every task to start one takes a while."""
    encoder = suited(task, "convnet")
    arguments = ["--data", shapes, "--size", 32, "--encoder", encoder, "--steps", 2, "--precision", "bf16"]
    arguments += ["--storage", tmp_path]
    main([task, *map(str, arguments), "--wandb", "off"])
    (folder,) = (path.parent for path in tmp_path.glob("*/pretrain/*/encoder.json"))
    assert (folder / "samples.png").stat().st_size > 1000
    weights = load((folder / "encoder.safetensors").read_bytes())
    assert {w.dtype for w in weights.values() if w.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize(
    "words",
    [
        "pirl --batch 1",
        "simclr --batch 4 --grad-accumulation 4",
        "simclr --batch 6 --grad-accumulation 4 --workers 1:3",
        "multi --tasks rotnet simclr --batch 4 --grad-accumulation 4",
        "jigsaw --batch 4 --grad-accumulation 4 --orders 1",
    ],
)
def test_parts_that_are_too_small_are_refused_before_anything_is_made(words, shapes, tmp_path):
    with pytest.raises(UserError, match="larger --batch"):
        main([*words.split(), "--data", str(shapes), "--size", "32", "--storage", str(tmp_path), "--wandb", "off"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("task", "precision", "ways"),
    [
        ("rotnet", "fp32", ["larger --grad-accumulation", "smaller --batch", "--precision bf16"]),
        ("rotnet", "bf16", ["larger --grad-accumulation", "smaller --batch"]),
        ("simclr", "bf16", ["more --workers", "compared with fewer"]),
    ],
)
def test_advice_on_memory_is_right_for_the_task(task, precision, ways, shapes, tmp_path):
    recipe = PretrainConfig(task=tasks()[task].Config(batch=8), data=str(shapes), size=32, precision=precision)
    training = prepare_training(recipe, Study(str(tmp_path / "s")), RuntimeConfig(wandb="off"))
    advice = out_of_memory_advice(training, torch.OutOfMemoryError("CUDA out of memory.\nmore"))
    assert all(way in advice for way in ways) and "\n" not in advice
    assert ("--precision bf16" in advice) == (precision == "fp32")
    assert ("try a larger --grad-accumulation" in advice) == (task == "rotnet")
    assert "--activation-checkpointing" in advice
    assert "--activation-checkpointing" not in out_of_memory_advice(
        replace(training, activation_checkpointing=True), torch.OutOfMemoryError("CUDA out of memory.")
    )


def test_divergence_stops_with_advice(tilespin, shapes, tmp_path):
    """A loss that is not finite ends the run with exit code 1 and what to try; no encoder is left."""
    arguments = [
        "--data",
        shapes,
        "--size",
        32,
        "--steps",
        60,
        "--lr",
        1e9,
        "--warmup",
        0,
        "--encoder",
        "convnet-plain",
        "--wandb",
        "off",
        "--storage",
        tmp_path,
    ]
    done = tilespin("pretrain", "context", *arguments, code=1)
    assert "lower --lr" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*/pretrain/*/encoder.json"))


def test_second_driver_is_refused(tilespin, shapes, tmp_path):
    """One study, one driver: the second says which process is at work. The lock goes with its owner."""
    from jobs.study.folder import Study

    arguments = [
        "pretrain",
        "rotnet",
        "--data",
        shapes,
        "--size",
        32,
        "--steps",
        2,
        "--wandb",
        "off",
        "--storage",
        tmp_path,
        "--name",
        "mine",
    ]
    with Study.open(str(tmp_path), "mine").lock():
        assert f"by process {os.getpid()}" in tilespin(*arguments, code=2).stderr
    tilespin(*arguments)
