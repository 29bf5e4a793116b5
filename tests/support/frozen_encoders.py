"""Makes frozen encoders on small made-up images, some with known diagnostics, and features in clusters."""

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from ssl_core.data.dataset import Arrays, Source
from ssl_core.evaluation.features import FrozenFeatures
from ssl_core.evaluation.frozen_encoder import FrozenEncoder, Splits
from support.synthetic_images import CLASSES, FORMAT, arrays

CPU = torch.device("cpu")


def small_source(train: int = 300, test: int = 120, size: int = 16) -> Source:
    """Returns a labeled dataset of that many gradients, `size` pixels a side."""
    parts = arrays(train, size), arrays(test, size, seed=1)
    return Source("made up", "digest", size, *parts, tuple(map(str, range(CLASSES))), FORMAT.mean, FORMAT.std)


def frozen(encoder: nn.Module, given: Source | None = None) -> FrozenEncoder:
    """Returns the encoder on the CPU with the images of `given`, or of `small_source`."""
    return FrozenEncoder(encoder, given or small_source(), "dataset", Splits(), 0, CPU, 0)


def unlabeled(given: Source) -> Source:
    """Returns the dataset as if it came from a flat folder: without classes and test part."""
    none = Arrays(given.test.images[:0], given.test.labels[:0])
    return replace(given, classes=(), train=Arrays(given.train.images, np.full(len(given.train), -1)), test=none)


class Constant(nn.Module):
    """Has collapsed: every image is the same point."""

    def forward(self, x):
        return [torch.ones(len(x), 8, 1, 1) * torch.arange(8).view(1, 8, 1, 1)]


class Noise(nn.Module):
    """Returns random maps, different ones for the same image, too."""

    def __init__(self, width: int):
        super().__init__()
        self.width, self.generator = width, torch.Generator().manual_seed(0)

    def forward(self, x):
        return [torch.randn(len(x), self.width, 1, 1, generator=self.generator)]


def clusters(apart: float, classes: int = 4, width: int = 16) -> FrozenFeatures:
    """Returns features of one stage in Gaussian clusters, one a class, `apart` standard deviations from the middle."""
    random = np.random.default_rng(0)
    centers = random.standard_normal((classes, width))
    centers *= apart / np.linalg.norm(centers, axis=1, keepdims=True)
    labels = {name: random.integers(0, classes, count) for name, count in (("train", 300), ("val", 50), ("test", 400))}
    stage = {n: (centers[ys] + random.standard_normal((len(ys), width))).astype(np.float32) for n, ys in labels.items()}
    return FrozenFeatures([stage], labels, classes)
