"""Is the representation an invariant mapping? How far an image's features move when the image is transformed, and
whether the transform can be read off them, without labels.

The distance is that of Misra and van der Maaten 2020 (PIRL, arXiv:1912.01991, figure 4), here over the mean distance
of two different images, which removes its scale; alignment and uniformity are those of Wang and Isola 2020
(arXiv:2005.10242).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.random import RandomBits, randint
from ssl_core.evaluation.features import Result
from ssl_core.evaluation.frozen_encoder import POOL, FrozenEncoder
from ssl_core.evaluation.logistic import fit_logistic
from ssl_core.evaluation.transforms import ORDERS, TRANSFORMS, augmented, rotated, shuffled

version = 2  # the augmented views of alignment are those of pretraining
on = "encoder"
labels = False
headline, higher = "rotation", False

Probe = Callable[
    [Tensor, RandomBits], list[tuple[Tensor, Tensor]]
]  # images -> [(transformed images, [b] which transform)]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Test images are compared with their transformed versions; training images teach the probes."""

    images: int = 500
    """of each split, evenly spaced"""
    c: float = 1.0
    """inverse strength of the probes' L2 penalty"""


def run(model: FrozenEncoder, config: Config, seed: int) -> Result:
    """`<transform>/<strength>` is the mean distance of an image's L2-normalized pooled features to those of its
    transformed version over the mean distance of two images, on the last stage: 0 is invariant, 1 is as far as another
    image; `<transform>` is the mean over strengths and `<transform>/stageN` that of stage N (counted from 1).

    `alignment` (lower: closer) is of pairs of an image and its augmented view, `uniformity` (lower: more even) of all
    pairs of images. `probe/rotation` and `probe/jigsaw` are the test accuracies of linear classifiers that read the
    quarter turn (chance 1/4) and the order of 2x2 tiles (chance 1/24) off the last stage's features; the closer to
    chance, the more invariant. They see at most `images` images of each split.
    """
    plain, views = _features(model, config, seed)
    scales = [mean_distance(f) for f in plain]
    numbers: dict[str, float] = {}
    several = len(plain[0]) > 1
    for name, strengths in TRANSFORMS.items() if several else ():
        ratios = [
            [_distance_ratio(f, g, scale) for f, g, scale in zip(plain, views[f"{name}/{s}"], scales)]
            for s in strengths
        ]
        for i, values in enumerate(zip(*ratios), start=1):
            numbers[f"{name}/stage{i}"] = sum(values) / len(values)
        numbers[name] = numbers[f"{name}/stage{len(plain)}"]
        if len(strengths) > 1:
            numbers |= {f"{name}/{s}": values[-1] for s, values in zip(strengths, ratios)}
    numbers["alignment"] = alignment(plain[-1], views["augmented"][-1])
    if several:
        numbers["uniformity"] = uniformity(plain[-1])
    for name, (probe, classes) in PROBES.items():
        numbers[f"probe/{name}"] = _probe_accuracy(model, probe, classes, config, seed)
    notes = () if several else ("distances to other images need a second test image",)
    return Result(numbers, notes=notes)


def _numbered_batches(model: FrozenEncoder, split: str, config: Config, seed: int):
    """The images of a split in batches, each with the chance that belongs to its images."""
    for images, ids in model.numbered_images(split, config.images):
        yield images, RandomBits(ids, torch.zeros_like(ids), seed)


def _features(model: FrozenEncoder, config: Config, seed: int) -> tuple[list[Tensor], dict[str, list[Tensor]]]:
    """L2-normalized pooled features of test images, [n, width] for each stage, and of each transform's version."""
    known = {f"{name}/{s}": view for name, strengths in TRANSFORMS.items() for s, view in strengths.items()}
    known = {"": lambda images, _: images, **known, "augmented": augmented}
    rows: dict[str, list[list[Tensor]]] = {name: [] for name in known}
    for images, bits in _numbered_batches(model, "test", config, seed):
        for name, view in known.items():
            rows[name].append([F.normalize(f, dim=1).cpu() for f in model.pool(view(images, bits))])
    found = {name: [torch.cat(parts) for parts in zip(*batches)] for name, batches in rows.items()}
    return found.pop(""), found


def _distance_ratio(f: Tensor, g: Tensor, scale: float) -> float:
    """A collapsed encoder, to which all images are one, gets 1: it keeps still for want of anything that could move."""
    return float((f - g).norm(dim=1).mean()) / scale if scale > 1e-5 else 1.0


def mean_distance(f: Tensor) -> float:
    """f [n, d] -> the mean Euclidean distance over all pairs of different rows; 0 for a single row."""
    return float(F.pdist(f).mean()) if len(f) > 1 else 0.0


def alignment(f: Tensor, g: Tensor) -> float:
    """f, g [n, d] of unit norm, a positive pair in each row -> the mean squared distance (their alpha = 2)."""
    return float((f - g).square().sum(1).mean())


def uniformity(f: Tensor) -> float:
    """f [n, d] of unit norm -> log of the mean Gaussian potential exp(-2 d^2) over all pairs (their t = 2)."""
    return float(F.pdist(f).square().mul(-2).exp().mean().log()) if len(f) > 1 else 0.0


def _all_rotations(images: Tensor, bits: RandomBits) -> list[tuple[Tensor, Tensor]]:
    return [(rotated(images, rotations), rotations) for rotations in (torch.full_like(bits.ids, k) for k in range(4))]


def _four_permutations(images: Tensor, bits: RandomBits) -> list[tuple[Tensor, Tensor]]:
    """Four random orders of the tiles of each image."""
    return [(shuffled(images, orders), orders) for orders in randint(bits.draw("probe/jigsaw", 4), len(ORDERS)).T]


PROBES: dict[str, tuple[Probe, int]] = {"rotation": (_all_rotations, 4), "jigsaw": (_four_permutations, len(ORDERS))}


def _probe_accuracy(model: FrozenEncoder, probe: Probe, classes: int, config: Config, seed: int) -> float:
    """The accuracy on transformed test images of a classifier that learned on transformed training images."""
    sets = {}
    for split in ("train", "test"):
        made = [pair for images, bits in _numbered_batches(model, split, config, seed) for pair in probe(images, bits)]
        features = torch.cat([model.pool(images, POOL)[-1].cpu() for images, _ in made])
        sets[split] = features, torch.cat([which for _, which in made]).cpu()
    x, y = sets["train"]
    mean, std = x.mean(0), x.std(0)
    std = torch.where(std > 1e-6, std, 1.0)
    layer = fit_logistic((x - mean) / std, y, classes, config.c)
    x, y = sets["test"]
    return float((layer((x - mean) / std).argmax(1) == y).float().mean())
