"""Pretrainings of the literature: each parses, costs what it says, and trains."""

from dataclasses import replace

import numpy as np
import pytest

import jobs.commands.pretrain
from jobs.config.parsing import parse
from jobs.config.published import PUBLISHED
from jobs.pretraining.run import build_model
from ssl_core.data.dataset import Arrays, Source
from ssl_core.data.decoding.crops import MIN_AREA
from ssl_core.errors import UserError
from ssl_core.macs import encoder_macs
from ssl_core.storage.records import EncoderRecord

pytestmark = pytest.mark.slow

SMALL = {224: 64, 255: 96, 128: 64}  # px: an ImageNet size, and one at which two steps take no time


def images(count: int, size: int) -> Source:
    """As many images as one wants, without their pixels."""
    none = Arrays(np.zeros((0, 8, 8, 3), np.uint8), np.zeros(0, np.int64))
    labels = np.zeros(count, np.int64)
    return Source("it", "it", size, Arrays(np.broadcast_to(np.uint8(0), (count, 8, 8, 3)), labels), none)


@pytest.mark.parametrize("name", PUBLISHED)
def test_costs_what_it_says(name):
    """The encoder's multiply-accumulates at full size over all epochs, to the three digits that are told."""
    published = PUBLISHED[name]
    source = images(published.images, published.recipe.size or 32)
    # these images are no files, of which the loader would cut squares
    task = replace(published.recipe.task, loader_min_area=MIN_AREA)
    recipe = replace(published.recipe, task=task).resolved(source, "cpu")
    model, _ = build_model(recipe, source)
    macs = encoder_macs(model, source.size) * recipe.steps * recipe.task.batch
    assert macs == pytest.approx(published.macs, rel=5e-3)
    assert f"{published.macs:.2g}" in published.description and published.reaches in published.description


@pytest.mark.parametrize("name", PUBLISHED)
def test_parses_and_trains_two_steps(name, shapes, tmp_path):
    """By its name alone it is what it says; small, it trains, and --steps replaces its epochs."""
    recipe = parse(jobs.commands.pretrain.options_type(), "pretrain", [name]).recipe
    assert {key: getattr(recipe, key) for key in vars(PUBLISHED[name].recipe)} == vars(PUBLISHED[name].recipe)
    size = SMALL.get(recipe.size, 32)
    arguments = [
        name,
        "--data",
        shapes,
        "--size",
        size,
        "--steps",
        2,
        "--batch",
        2,
        "--wandb",
        "off",
        "--storage",
        tmp_path,
        "--name",
        "it",
        "--decode-threads",
        1,
    ]
    jobs.commands.pretrain.main([str(word) for word in arguments])
    (path,) = tmp_path.glob("it/pretrain/*/encoder.json")
    record = EncoderRecord.read(path)
    assert (record.training.steps, record.encoder, record.size) == (2, recipe.encoder, size)
    assert np.isfinite(record.training.pretext["loss"])


def test_two_lengths_are_refused(shapes):
    with pytest.raises(UserError, match="choose one"):
        jobs.commands.pretrain.main(
            ["rotnet-cifar10-nin", "--data", str(shapes), "--steps", "2", "--epochs", "3", "--wandb", "off"]
        )
