"""The attentive probe: what it finds that a mean over cells hides, what chooses, and how large maps are read."""

import numpy as np
import pytest
import torch
from support.frozen_encoders import frozen
from support.synthetic_images import FORMAT
from torch import nn
from torch.nn import functional as F

import ssl_core.encoders.build as encoders
from ssl_core.data.dataset import Arrays, Source
from ssl_core.evaluation.features import extract
from ssl_core.evaluation.frozen_encoder import FrozenEncoder, Splits
from ssl_core.evaluation.protocols import attentive
from ssl_core.evaluation.protocols.attentive import AttentionPool, AttentiveProbe
from ssl_core.evaluation.protocols.linear import LinearProbe

pytestmark = pytest.mark.slow

CONFIG = AttentiveProbe.Config(epochs=20, batch=64, learning_rates=(0.003, 0.03))


class Cells(nn.Module):
    """The image's colors in 4x4 cells, in 16 channels, and after it nothing at all in a single cell."""

    def forward(self, x):
        cells = F.adaptive_avg_pool2d(x, 4).repeat(1, 6, 1, 1)[:, :16]
        return [cells, torch.zeros_like(cells[:, :, :1, :1])]


def marked(count: int, seed: int) -> Arrays:
    """Images of 4x4 cells that are red or not; the class is that of the one cell which is also green."""
    random = np.random.default_rng(seed)
    red, where = random.integers(0, 2, (count, 16)), random.integers(0, 16, count)
    cells = np.stack([red * 200, np.zeros_like(red), np.zeros_like(red)], 2)
    cells[np.arange(count), where, 1] = 200
    images = cells.reshape(count, 4, 4, 3).repeat(4, axis=1).repeat(4, axis=2)
    return Arrays(images.astype(np.uint8), red[np.arange(count), where].astype(np.int64))


def model(test: Arrays | None = None) -> FrozenEncoder:
    source = Source(
        "made up", "digest", 16, marked(1500, 0), test or marked(300, 1), ("no", "red"), FORMAT.mean, FORMAT.std
    )
    return FrozenEncoder(Cells(), source, "dataset", Splits(), 0, torch.device("cpu"), 1)


def test_finds_the_cell_that_a_mean_hides():
    found = AttentiveProbe().run(model(), CONFIG, 0)
    assert found.numbers["top1"] > 0.95 and found.numbers["cells"] == 4
    assert found.correct.mean() == pytest.approx(found.numbers["top1"])
    assert found.chosen["learning_rate"] in CONFIG.learning_rates and found.chosen["val_score"] > 0.95
    assert LinearProbe().run(extract(model()), LinearProbe.Config(), 0).numbers["top1"] < 0.8


def test_test_labels_choose_nothing():
    given = marked(300, 1)
    config = AttentiveProbe.Config(epochs=3, batch=64, learning_rates=(0.003, 0.03))
    found, other = (
        AttentiveProbe().run(model(Arrays(given.images, y)), config, 0) for y in (given.labels, 1 - given.labels)
    )
    assert other.chosen == found.chosen and np.array_equal(other.correct, ~found.correct)


def test_attention_is_that_of_the_paper():
    """One image and two queries in numpy: each query's softmax over cells gathers its half of the projected values."""
    pool = AttentionPool(6, 3, 2)
    cells = torch.randn(1, 5, 6)
    x, q, v = (t.detach().double().numpy() for t in (cells[0], pool.queries, pool.values.weight))
    scores = np.exp(q @ x.T)
    shares = scores / scores.sum(1, keepdims=True)
    values = x @ v.T
    gathered = np.concatenate([shares[0] @ values[:, :3], shares[1] @ values[:, 3:]])
    wanted = pool.classifier.weight.detach().double().numpy() @ gathered + pool.classifier.bias.detach().numpy()
    assert pool(cells)[0].tolist() == pytest.approx(wanted.tolist(), rel=1e-4)


def test_a_transformers_class_token_is_no_map():
    encoder = encoders.build("vit-small-images", 16, 0)
    found = AttentiveProbe().run(frozen(encoder), AttentiveProbe.Config(epochs=1), 0)
    assert found.numbers["cells"] == 4 and 0 <= found.numbers["top1"] <= 1


@pytest.mark.parametrize(
    ("width", "side", "images", "memory", "cells"),
    [(128, 4, 10_000, 4.0, 4), (128, 32, 10_000, 4.0, 8), (2048, 8, 60_000, 4.0, 2), (2048, 8, 10_000_000, 0.1, 1)],
)
def test_maps_are_averaged_until_there_is_room(width, side, images, memory, cells):
    assert attentive._cells(width, side, images, AttentiveProbe.Config(memory=memory)) == cells
