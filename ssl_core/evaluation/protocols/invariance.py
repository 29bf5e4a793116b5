"""Measures how invariant features are to transforms of the image, without labels.

Three measures on test images, "features" being a stage's map averaged over its cells and L2-normalized:
- Distance ratios. For each transform and strength of `transforms.TRANSFORMS`: the mean Euclidean distance between the
  features of an image and of its transformed version, over the mean distance of two different images. 0 is invariant, 1
  is as far as another image. The distance is that of PIRL (Misra and van der Maaten 2020, arXiv:1912.01991, figure 4);
  the division removes the features' scale.
- Alignment and uniformity (Wang and Isola 2020, arXiv:2005.10242) of the last stage. Alignment is the mean squared
  distance between an image and an augmented view of it, uniformity the log of the mean of exp(-2 d^2) over the
  distances d of all pairs of images. Both: lower is better.
- Probes: the test accuracy of a logistic regression that reads the transform off the features of the last map, averaged
  to POOL x POOL cells and standardized: the quarter turn (4 classes, all four versions of each image) or the order of
  2x2 tiles (24 classes, four random versions of each image). It is fit to versions of training images. The closer to
  chance, the more invariant.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.random import RandomBits, randint
from ssl_core.evaluation.frozen_encoder import POOL, FrozenEncoder
from ssl_core.evaluation.logistic import fit_logistic
from ssl_core.evaluation.protocol import Protocol, Result
from ssl_core.evaluation.transforms import ORDERS, TRANSFORMS, augmented, rotated, shuffled

Probe = Callable[
    [Tensor, RandomBits], list[tuple[Tensor, Tensor]]
]  # images -> [(transformed images, [b] which transform)]


class Invariance(Protocol):
    """Measures how little features change when the image is transformed."""

    version = 2  # the augmented views of alignment are those of pretraining
    on = "encoder"
    needs_labels = False
    headline, higher_is_better = "rotation", False

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Sets how many images are compared, and the probes' penalty."""

        images: int = 500
        """of each split, evenly spaced"""
        c: float = 1.0
        """inverse strength of the probes' L2 penalty"""

    def run(self, model: FrozenEncoder, config: Config, seed: int) -> Result:
        """Computes distance ratios, alignment, uniformity and probe accuracies.

        Args:
            model: The encoder with its images.
            config: Number of images and strength of the penalty.
            seed: Decides what is random in the transforms.

        Returns:
            `<transform>/<strength>`, a ratio at the last stage, for transforms of several strengths;
            `<transform>/stageN`, the mean ratio over strengths at stage N (counted from 1); `<transform>`, that at the
            last stage; `alignment`; `uniformity`; `probe/rotation` (chance 1/4) and `probe/jigsaw` (chance 1/24),
            fractions. With a single test image there are no ratios and no uniformity, and a note says so.
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


def _numbered_batches(
    model: FrozenEncoder, split: str, config: Invariance.Config, seed: int
) -> Iterator[tuple[Tensor, RandomBits]]:
    """Reads the images of a split in batches.

    Yields:
        Images, [b, s, s, 3] uint8, and the random numbers that belong to them.
    """
    for images, ids in model.numbered_images(split, config.images):
        yield images, RandomBits(ids, torch.zeros_like(ids), seed)


def _features(
    model: FrozenEncoder, config: Invariance.Config, seed: int
) -> tuple[list[Tensor], dict[str, list[Tensor]]]:
    """Returns the features of test images, [n, width] for each stage, and by transform those of its versions."""
    known = {f"{name}/{s}": view for name, strengths in TRANSFORMS.items() for s, view in strengths.items()}
    known = {"": lambda images, _: images, **known, "augmented": augmented}
    rows: dict[str, list[list[Tensor]]] = {name: [] for name in known}
    for images, bits in _numbered_batches(model, "test", config, seed):
        for name, view in known.items():
            rows[name].append([F.normalize(f, dim=1).cpu() for f in model.pool(view(images, bits))])
    found = {name: [torch.cat(parts) for parts in zip(*batches)] for name, batches in rows.items()}
    return found.pop(""), found


def _distance_ratio(f: Tensor, g: Tensor, scale: float) -> float:
    """Returns the mean distance of f and g, [n, d], over `scale`; 1 for an encoder that has collapsed.

    To such an encoder all images are one: that it does not move is no invariance.
    """
    return float((f - g).norm(dim=1).mean()) / scale if scale > 1e-5 else 1.0


def mean_distance(f: Tensor) -> float:
    """Returns the mean Euclidean distance over all pairs of different rows of f, [n, d]; 0 for a single row."""
    return float(F.pdist(f).mean()) if len(f) > 1 else 0.0


def alignment(f: Tensor, g: Tensor) -> float:
    """Returns the alignment of positive pairs: their mean squared distance.

    Source: Wang and Isola 2020 (arXiv:2005.10242), with their alpha = 2.

    Args:
        f: [n, d], rows of norm 1.
        g: [n, d], rows of norm 1, each the positive of the same row of `f`.
    """
    return float((f - g).square().sum(1).mean())


def uniformity(f: Tensor) -> float:
    """Returns the uniformity of features: the log of the mean Gaussian potential exp(-2 d^2) over all pairs.

    Source: Wang and Isola 2020 (arXiv:2005.10242), with their t = 2.

    Args:
        f: [n, d], rows of norm 1.

    Returns:
        -8 to 0; 0 if all rows are equal or there is only one.
    """
    return float(F.pdist(f).square().mul(-2).exp().mean().log()) if len(f) > 1 else 0.0


def _all_rotations(images: Tensor, bits: RandomBits) -> list[tuple[Tensor, Tensor]]:
    """Returns all four quarter turns of the images, each with its number of turns, [b]."""
    return [(rotated(images, rotations), rotations) for rotations in (torch.full_like(bits.ids, k) for k in range(4))]


def _four_permutations(images: Tensor, bits: RandomBits) -> list[tuple[Tensor, Tensor]]:
    """Returns four random orders of the tiles of each image, each with its row of ORDERS, [b]."""
    return [(shuffled(images, orders), orders) for orders in randint(bits.draw("probe/jigsaw", 4), len(ORDERS)).T]


PROBES: dict[str, tuple[Probe, int]] = {"rotation": (_all_rotations, 4), "jigsaw": (_four_permutations, len(ORDERS))}


def _probe_accuracy(model: FrozenEncoder, probe: Probe, classes: int, config: Invariance.Config, seed: int) -> float:
    """Returns the accuracy on transformed test images of a classifier that is fit to transformed training images."""
    sets = {}
    for split in ("train", "test"):
        made = [pair for images, bits in _numbered_batches(model, split, config, seed) for pair in probe(images, bits)]
        features = torch.cat([model.pool(images, POOL)[model.last_map].cpu() for images, _ in made])
        sets[split] = features, torch.cat([which for _, which in made]).cpu()
    x, y = sets["train"]
    mean, std = x.mean(0), x.std(0)
    std = torch.where(std > 1e-6, std, 1.0)
    layer = fit_logistic((x - mean) / std, y, classes, config.c)
    x, y = sets["test"]
    return float((layer((x - mean) / std).argmax(1) == y).float().mean())
