"""Fine-tuning: what it learns, what chooses, and that an interrupted one ends with the same weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.killable_run import killed_at
from support.synthetic_images import FORMAT, stripes

import ssl_core.encoders.build as encoders
import ssl_core.evaluation.finetuning as finetuning
from ssl_core.data.dataset import Arrays, Source, open_source
from ssl_core.evaluation.frozen_encoder import FrozenEncoder, Splits
from ssl_core.evaluation.protocols.finetune import FineTuning

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
CONFIG = FineTuning.Config(learning_rates=(0.1,), epochs=4, batch=32)


def model(keep=None, **changes) -> FrozenEncoder:
    source = Source(
        "made up", "digest", 16, stripes(240, 0), stripes(60, 1), ("down", "across"), FORMAT.mean, FORMAT.std
    )
    source = replace(source, **changes)
    return FrozenEncoder(encoders.build("convnet", source.size, 0), source, "dataset", Splits(), 0, CPU, 1, keep)


def test_learns_and_leaves_the_encoder_as_it_was():
    one = model()
    before = encoders.digest(one.encoder)
    result = FineTuning().run(one, CONFIG, 0)
    assert result.numbers["top1"] > 0.95 and result.correct.mean() == pytest.approx(result.numbers["top1"])
    assert encoders.digest(one.encoder) == before and not one.encoder.training
    again = FineTuning().run(model(), CONFIG, 0)
    assert np.array_equal(again.correct, result.correct) and again.chosen == result.chosen


def test_an_interrupted_one_ends_with_the_same_weights(tmp_path, monkeypatch):
    """A checkpoint after every step; the second half in a process that knows only the folder."""
    what = dict(steps=6, batch=16, optim=finetuning.Optim(lr=0.05, warmup=0.0), min_area=0.2, seed=3)
    ids = model().parts["train"][1]
    whole = finetuning.finetune(model(), ids, **what)
    with killed_at(3):
        finetuning.finetune(model(), ids, **what, keep=tmp_path)
    continued = finetuning.finetune(model(), ids, **what, keep=tmp_path)
    assert encoders.digest(continued) == encoders.digest(whole)
    monkeypatch.setattr(finetuning, "train", None)  # a finished one is not trained again
    assert encoders.digest(finetuning.finetune(model(), ids, **what, keep=tmp_path)) == encoders.digest(whole)


def test_held_out_images_choose_and_a_rate_that_diverges_does_not():
    result = FineTuning().run(model(), replace(CONFIG, learning_rates=(1e30, 1e-6, 0.1)), 0)
    assert result.chosen["learning_rate"] == 0.1 and result.numbers["top1"] > 0.95


def test_test_labels_choose_nothing():
    given = stripes(60, 1)
    result = FineTuning().run(model(), CONFIG, 0)
    other = FineTuning().run(model(test=Arrays(given.images, 1 - given.labels)), CONFIG, 0)
    assert other.chosen == result.chosen and np.array_equal(other.correct, ~result.correct)


def test_tunes_on_files_and_under_the_per_image_normalization(shapes):
    """Only the images it is given are read, through the loaders of pretraining."""
    source = open_source(str(shapes), 32)
    one = FrozenEncoder(encoders.build("convnet", 32, 0), source, "image", Splits(num_labels=60), 0, CPU, 1)
    result = FineTuning().run(one, replace(CONFIG, epochs=1), 0)
    assert result.correct.shape == (len(source.test),) and 0 <= result.chosen["val_score"] <= 1
