"""Features of a frozen encoder, extracted once and judged by every protocol."""

from dataclasses import dataclass, field
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import ssl_core.encoders as encoders
import ssl_core.evaluators
from kernels.rotate import rotate
from kernels.shuffle_tiles import shuffle_tiles
from ssl_core.data.loader import evaluation_batches
from ssl_core.data.order import order_of
from ssl_core.data.source import Source
from ssl_core.discover import modules
from ssl_core.errors import BadInput
from ssl_core.task import Format

VERSION = 1  # raise when features would change
POOL = 2  # every stage's map is averaged to POOL x POOL cells and flattened
CALIBRATION = 2000  # unlabelled training images that batch norm's statistics are re-estimated on


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Which labelled images a probe learns from; test images are all of the test part."""

    labels: int = 12_000
    """labelled training images that a probe may use, held-out ones included; 0 for all"""
    held_out: float = 1 / 6
    """share of them that chooses stage and learning rate; test data chooses nothing"""


@dataclass(frozen=True)
class Subject:
    """A frozen encoder as its features: stages[i][split] is [n, d_i] float32, standardised on "fit"'s statistics."""

    stages: list[dict[str, np.ndarray]]
    labels: dict[str, np.ndarray]  # "fit", "held" and "test": [n] int64
    classes: int


@dataclass(frozen=True)
class Result:
    """What a protocol found. `correct` is [n_test] bool for protocols that are right or wrong on an image."""

    numbers: dict[str, float]
    correct: np.ndarray | None = None
    chosen: dict = field(default_factory=dict)  # what held-out data chose


def protocols() -> dict[str, ModuleType]:
    """Every evaluator by its file's name."""
    return {name: m for name, m in modules(ssl_core.evaluators).items() if hasattr(m, "run")}


def normalise(images: Tensor, normalisation: str, format: Format) -> Tensor:
    """[b, s, s, 3] uint8 -> [b, 3, s, s]: "dataset" by fixed statistics, "image" by each image's own."""
    b, size = images.shape[:2]
    zeros = torch.zeros(b, dtype=torch.int64, device=images.device)
    pairs = zeros[:, None].expand(b, 2)
    if normalisation == "dataset":
        return rotate(images, zeros, zeros, pairs, size=size, **format.options())
    one, shifts = zeros[:, None], zeros[:, None, None].expand(b, 3, 2)
    options = dict(tile=size, standardise=True, **format.options())
    return shuffle_tiles(images, one, pairs[:, None], shifts, zeros, **options)


def shares(source: Source, splits: Splits, seed: int) -> tuple[np.ndarray, dict[str, tuple[str, np.ndarray]]]:
    """-> (all training ids in the order of `seed`, {"fit", "held", "test": (part of the source, ids)}).

    Raises BadInput if the source has no labels to judge by, or too few.
    """
    if not source.classes:
        raise BadInput(f"{source.name} has no labels: evaluation needs a folder with one sub-folder for each class")
    shuffled = order_of(source.train, seed).at(np.arange(len(source.train)))[0]
    labelled = shuffled[source.train.labels[shuffled] >= 0][: splits.labels or None]
    held = max(1, round(len(labelled) * splits.held_out))
    if len(labelled) - held < 2 or not len(source.test):
        raise BadInput(
            f"{source.name} has {len(labelled)} labelled training images and {len(source.test)} test "
            "images: too few to judge an encoder by"
        )
    ids = {"fit": ("train", labelled[held:]), "held": ("train", labelled[:held])}
    return shuffled, {**ids, "test": ("test", np.arange(len(source.test)))}


def size_of(encoder: nn.Module, name: str, source: Source, splits: Splits, seed: int) -> int:
    """Bytes of the features that `extract` returns."""
    images = sum(len(ids) for _, ids in shares(source, splits, seed)[1].values())
    widths = encoders.describe(encoder, name, source.size).widths
    return images * sum(widths) * POOL**2 * 4


@torch.no_grad()
def extract(
    encoder: nn.Module, source: Source, normalisation: str, splits: Splits, seed: int,
    device: torch.device, threads: int,
) -> Subject:  # fmt: skip
    """Freezes `encoder`, re-estimates its batch-norm statistics on unlabelled training images, and extracts.

    Raises BadInput if the source has no labels to judge by.
    """
    encoder = encoder.to(device, memory_format=torch.channels_last)
    format = Format(source.mean, source.std)
    shuffled, parts = shares(source, splits, seed)

    def maps(part: str, ids: np.ndarray):
        for batch in evaluation_batches(source, part, ids, device, threads):
            good = batch.weights > 0
            yield encoder(normalise(batch.images[good], normalisation, format)), batch.labels[good]

    _recalibrate(encoder, lambda: maps("train", shuffled[:CALIBRATION]))
    stages: list[dict[str, np.ndarray]] = []
    labels = {}
    for name, (part, ids) in parts.items():
        rows = [([F.adaptive_avg_pool2d(m, POOL).flatten(1).cpu() for m in ms], ls.cpu()) for ms, ls in maps(part, ids)]
        labels[name] = torch.cat([ls for _, ls in rows]).numpy()
        for i, feature in enumerate(zip(*(fs for fs, _ in rows))):
            if name == "fit":
                stages.append({})
            stages[i][name] = torch.cat(feature).numpy()
    for stage in stages:
        mean, std = stage["fit"].mean(0), stage["fit"].std(0)
        for name in stage:
            stage[name] = (stage[name] - mean) / np.where(std > 1e-6, std, 1)  # constant ones stay small
    return Subject(stages, labels, len(source.classes))


def _recalibrate(encoder: nn.Module, maps) -> None:
    """Batch-norm statistics as plain averages over whole images: training saw crops, tiles or holes."""
    norms = [m for m in encoder.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch: the average of all batches seen
    encoder.train()
    for _ in maps() if norms else ():
        pass
    encoder.eval()
