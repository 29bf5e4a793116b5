"""Invariance against closed forms, distances of scikit-learn and encoders whose answer is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import pairwise_distances
from support.frozen_encoders import Constant, Noise, frozen, small_source, unlabeled
from support.synthetic_images import FORMAT
from torch import nn

import ssl_core.encoders.build as encoders
from ssl_core.data.dataset import Arrays
from ssl_core.evaluation.protocols import invariance
from ssl_core.evaluation.protocols.invariance import Invariance
from ssl_core.evaluation.transforms import TRANSFORMS


class MeanColor(nn.Module):
    """Invariant to all that moves pixels and changes none."""

    def forward(self, x):
        return [x.double().mean((2, 3), keepdim=True).float()]


def test_a_perfectly_invariant_encoder():
    numbers = Invariance().run(frozen(MeanColor()), Invariance.Config(images=100), 0).numbers
    for name in ("rotation", "rotation/90", "rotation/180", "rotation/270", "flip", "jigsaw", "jigsaw/stage1"):
        assert numbers[name] == pytest.approx(0, abs=1e-5), name
    assert numbers["color"] > 0.05 and numbers["crop"] > 0.05
    assert numbers["probe/rotation"] == pytest.approx(1 / 4, abs=0.03)
    assert numbers["probe/jigsaw"] < 0.1


def test_an_encoder_that_sees_every_turn():
    """Each quarter of these images has a brightness of its own, which raw pixels tell."""
    line, random = np.arange(16), np.random.default_rng(0)
    ramp = (8 * line[:, None] + 4 * line)[..., None] + random.integers(0, 60, (420, 1, 1, 1)) + np.zeros(3, int)
    pixels, labels = ramp.astype(np.uint8), np.zeros(420, np.int64)
    given = replace(small_source(), train=Arrays(pixels[:300], labels[:300]), test=Arrays(pixels[300:], labels[300:]))
    numbers = Invariance().run(frozen(encoders.build("raw-pixels", 16, 0), given), Invariance.Config(), 0).numbers
    assert numbers["rotation"] > 1 and numbers["flip"] > 0.1
    assert numbers["probe/rotation"] > 0.99 and numbers["probe/jigsaw"] > 0.9


def test_without_invariance_a_version_is_as_far_as_another_image():
    numbers = Invariance().run(frozen(Noise(64)), Invariance.Config(), 0).numbers
    ratios = [value for name, value in numbers.items() if name.split("/")[0] in TRANSFORMS]
    assert len(ratios) > 12 and ratios == pytest.approx([1] * len(ratios), abs=0.05)


def test_a_collapsed_encoder_is_not_called_invariant():
    numbers = Invariance().run(frozen(Constant()), Invariance.Config(), 0).numbers
    assert numbers["rotation"] == 1
    assert numbers["alignment"] == pytest.approx(0, abs=1e-6) == numbers["uniformity"]


@pytest.mark.slow
def test_the_ratio_is_that_of_all_pairs():
    """Against the distances of scikit-learn, on an encoder and a transform worked out here."""
    given, encoder = small_source(), encoders.build("convnet", 16, 0)
    numbers = Invariance().run(frozen(encoder, given), Invariance.Config(), 0).numbers
    pixels = torch.from_numpy(given.test.images)

    def features(images):
        x = (images.permute(0, 3, 1, 2) - torch.tensor(FORMAT.mean).view(3, 1, 1)) / torch.tensor(FORMAT.std).view(
            3, 1, 1
        )
        with torch.no_grad():
            z = encoder(x)[1].mean((2, 3)).numpy()
        return z / np.linalg.norm(z, axis=1, keepdims=True)

    plain, flipped = features(pixels), features(pixels.flip(2))
    among = pairwise_distances(plain)[np.triu_indices(len(plain), 1)].mean()
    assert numbers["flip/stage2"] == pytest.approx(np.linalg.norm(plain - flipped, axis=1).mean() / among, rel=1e-3)


def test_alignment_and_uniformity_by_hand():
    """Four points on the axes of a circle: squared distances 2 (four pairs) and 4 (two pairs)."""
    square = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    assert invariance.uniformity(square) == pytest.approx(np.log((4 * np.exp(-4) + 2 * np.exp(-8)) / 6))
    assert invariance.alignment(square, square.roll(1, 0)) == pytest.approx(2)
    assert invariance.alignment(square, -square) == pytest.approx(4)
    assert invariance.mean_distance(square) == pytest.approx((4 * 2**0.5 + 2 * 2) / 6)


@pytest.mark.slow
def test_invariance_needs_no_labels_and_a_seed_names_it():
    bare = unlabeled(small_source())
    one, again, other = (
        Invariance().run(frozen(encoders.build("convnet", 16, 0), bare), Invariance.Config(images=40), seed).numbers
        for seed in (0, 0, 1)
    )
    assert one == again and one["crop"] != other["crop"] and one["rotation"] == other["rotation"]
