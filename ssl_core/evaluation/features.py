"""Features of a frozen encoder, extracted once for every protocol."""

from dataclasses import dataclass, field
from types import ModuleType

import numpy as np
import torch
from torch import nn

import ssl_core.encoders.build as encoders
import ssl_core.evaluation.protocols
from ssl_core.data.dataset import Source
from ssl_core.evaluation.frozen_encoder import POOL, SPLITS, FrozenEncoder, Splits, make_splits
from ssl_core.plugins import modules

VERSION = 1  # raise when features would change


@dataclass(frozen=True)
class FrozenFeatures:
    """A frozen encoder as its features: stages[i][split] is [n, d_i] float32, standardized on "train"'s statistics."""

    stages: list[dict[str, np.ndarray]]
    labels: dict[str, np.ndarray]  # "train", "val" and "test": [n] int64, -1 where there are none
    classes: int


@dataclass(frozen=True)
class Result:
    """What a protocol found. `correct` is [n_test] bool for protocols that are right or wrong on an image; `sheet` a
    picture for people, [h, w, 3] uint8; `notes` say what these images do not allow to measure, and why."""

    numbers: dict[str, float]
    correct: np.ndarray | None = None
    chosen: dict = field(default_factory=dict)  # what held-out data chose
    sheet: np.ndarray | None = None
    notes: tuple[str, ...] = ()


def protocols() -> dict[str, ModuleType]:
    """Every evaluator by its file's name."""
    return {name: m for name, m in modules(ssl_core.evaluation.protocols).items() if hasattr(m, "run")}


def standardize(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x [n, d] float32 -> the mean and standard deviation [d] to standardize features by; 1 for constant ones, which
    stay small."""
    std = x.std(0)
    return x.mean(0), np.where(std > 1e-6, std, np.float32(1))


def is_accuracy(protocol: str) -> bool:
    """Whether its headline is the accuracy on all test images, which is shown in percent."""
    return protocols()[protocol].headline == "top1"


def size_of(encoder: nn.Module, name: str, source: Source, splits: Splits, seed: int) -> int:
    """Bytes of the features that `extract` returns."""
    images = sum(len(ids) for _, ids in make_splits(source, splits, seed)[1].values())
    widths = encoders.describe(encoder, name, source.size).widths
    return images * sum(widths) * POOL**2 * 4


def extract(model: FrozenEncoder) -> FrozenFeatures:
    """The features of all its images."""
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
    return FrozenFeatures(stages, labels, model.classes)
