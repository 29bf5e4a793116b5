"""Extracts the features of a frozen encoder, once for all protocols that need nothing else.

A feature is a stage's map averaged to POOL x POOL cells and flattened, each coordinate standardized by its mean and
standard deviation over the images that a probe learns from.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

import ssl_core.encoders.build as encoders
from ssl_core.data.dataset import Source
from ssl_core.evaluation.frozen_encoder import POOL, SPLITS, FrozenEncoder, Splits, make_splits

VERSION = 2  # raise when features would change


@dataclass(frozen=True)
class FrozenFeatures:
    """Holds the features of a frozen encoder for all images of all splits.

    Attributes:
        stages: For each stage, shallow to deep, by split: [n, d] float32, standardized by the statistics of "train".
        labels: By split, "train", "val" and "test": [n] int64, -1 where there are none, or [n, classes] bool where
            images may have several.
        classes: The number of classes, of which each image has one; 0 where there are no such labels.
        class_names: Their names, by number.
    """

    stages: list[dict[str, np.ndarray]]
    labels: dict[str, np.ndarray]
    classes: int
    class_names: tuple[str, ...] = ()

    @property
    def multilabel(self) -> bool:
        """Returns whether images may have several labels."""
        return self.labels["train"].ndim == 2


def standardize(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the statistics to standardize features by.

    Args:
        x: [n, d] float32.

    Returns:
        The mean, [d], and the standard deviation (divisor n), [d]. For a coordinate whose deviation is at most 1e-6 the
        latter is 1: it is constant, and rounding errors are not to be enlarged.
    """
    std = x.std(0)
    return x.mean(0), np.where(std > 1e-6, std, np.float32(1))


def size_of(encoder: nn.Module, name: str, source: Source, splits: Splits, seed: int) -> int:
    """Returns the bytes that the features take which `extract` returns, at most.

    Args:
        encoder: On the CPU; is called with blank images.
        name: The encoder's name, for messages.
        source: The dataset.
        splits: Which of its images are used.
        seed: Decides the splits.

    Raises:
        UserError: If there are too few images, or the encoder does not work at the source's image size.
    """
    images = sum(len(ids) for _, ids in make_splits(source, splits, seed)[1].values())
    widths = encoders.describe(encoder, name, source.size).widths
    return images * sum(widths) * POOL**2 * 4


def extract(model: FrozenEncoder) -> FrozenFeatures:
    """Returns the standardized features of all images of a frozen encoder.

    Args:
        model: The encoder with its images.

    Raises:
        UserError: If no image of a split can be decoded.
        Diverged: If features are not finite.
    """
    stages: list[dict[str, np.ndarray]] = []
    labels = {}
    for name in SPLITS:
        rows = [([f.cpu() for f in model.pool(images, POOL)], ls.cpu()) for images, ls in model.images(name)]
        labels[name] = torch.cat([ls for _, ls in rows]).numpy()
        for i, feature in enumerate(zip(*(fs for fs, _ in rows))):
            if name == "train":
                stages.append({})
            stages[i][name] = torch.cat(feature).numpy()
    for stage in stages:
        mean, std = standardize(stage["train"])
        for name in stage:
            stage[name] -= mean
            stage[name] /= std
    return FrozenFeatures(stages, labels, model.classes, model.source.classes)
