"""The non-linear probe: what it reads that a linear one cannot, what chooses, and that an interrupted one continues."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.killable_run import killed_at
from support.synthetic_images import FORMAT
from torch.nn import functional as F

import ssl_core.encoders.build as encoders
from ssl_core.data.dataset import Arrays, Source
from ssl_core.evaluation.features import extract
from ssl_core.evaluation.frozen_encoder import FrozenEncoder, Splits
from ssl_core.evaluation.protocols import nonlinear
from ssl_core.evaluation.protocols.linear import LinearProbe
from ssl_core.evaluation.protocols.nonlinear import NonlinearProbe

pytestmark = pytest.mark.slow

CONFIG = NonlinearProbe.Config(epochs=12, batch=32)


class Halves(torch.nn.Module):
    """Two stages: the brightness of the upper and the lower half, and nothing at all."""

    def forward(self, x):
        return [F.adaptive_avg_pool2d(x, (2, 1)), torch.zeros_like(x[:, :1, :2, :2])]


def unlike(count: int, seed: int) -> Arrays:
    """Images of 16 px of which the halves are equally bright (class 0) or not: neither half alone tells."""
    random = np.random.default_rng(seed)
    bright = random.integers(0, 2, (count, 2))
    gray = np.where(bright, 200, 60).repeat(8, axis=1)[:, :, None, None] + random.integers(-20, 20, (count, 16, 16, 3))
    return Arrays(gray.astype(np.uint8), (bright[:, 0] != bright[:, 1]).astype(np.int64))


def model(encoder=None, keep=None, test=None) -> FrozenEncoder:
    images = unlike(600, 0), test or unlike(200, 1)
    source = Source("made up", "digest", 16, *images, ("alike", "unlike"), FORMAT.mean, FORMAT.std)
    return FrozenEncoder(encoder or Halves(), source, "dataset", Splits(), 0, torch.device("cpu"), 1, keep)


def test_reads_what_no_linear_probe_can():
    found = NonlinearProbe().run(model(), CONFIG, 0)
    assert found.numbers["top1"] == found.numbers["top1/stage1"] > 0.97 and found.chosen["stage"] == 1
    assert found.correct.mean() == pytest.approx(found.numbers["top1"])
    assert abs(found.numbers["top1/stage2"] - 0.5) < 0.1  # there is nothing to read
    assert LinearProbe().run(extract(model()), LinearProbe.Config(), 0).numbers["top1"] < 0.8


def test_a_stage_learns_as_it_would_alone():
    class First(torch.nn.Module):
        def forward(self, x):
            return Halves()(x)[:1]

    both, alone = (
        NonlinearProbe().run(model(encoder), replace(CONFIG, epochs=2), 0) for encoder in (Halves(), First())
    )
    assert both.numbers["top1/stage1"] == alone.numbers["top1/stage1"]


def test_the_encoder_stays_as_it_was_and_large_maps_are_averaged():
    one = model(encoders.build("convnet", 16, 0))
    before = encoders.digest(one.encoder)
    found = NonlinearProbe().run(one, replace(CONFIG, epochs=1, inputs=600), 0)
    assert set(found.numbers) == {"top1", "top1/balanced", "top1/stage1", "top1/stage2", "top1/stage3"}
    assert encoders.digest(one.encoder) == before and not one.encoder.training
    maps = one.feature_maps(torch.zeros(1, 16, 16, 3, dtype=torch.uint8))  # 32 x 8 x 8, 64 x 4 x 4, 128 x 2 x 2
    assert [x.shape[1] for x in nonlinear.flat(maps, 600)] == [32 * 16, 64 * 9, 128 * 4]


def test_test_labels_choose_nothing():
    given = unlike(200, 1)
    found, other = (
        NonlinearProbe().run(model(test=Arrays(given.images, y)), CONFIG, 0) for y in (given.labels, 1 - given.labels)
    )
    assert other.chosen == found.chosen and np.array_equal(other.correct, ~found.correct)


def test_an_interrupted_one_ends_with_the_same_judgment(tmp_path):
    """A checkpoint after every step; the rest by one that knows only the folder."""
    whole = NonlinearProbe().run(model(), replace(CONFIG, epochs=2), 0)
    with killed_at(5):
        NonlinearProbe().run(model(keep=tmp_path), replace(CONFIG, epochs=2), 0)
    assert NonlinearProbe().run(model(keep=tmp_path), replace(CONFIG, epochs=2), 0).numbers == whole.numbers
