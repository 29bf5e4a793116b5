"""Measures whether images of one class lie close together, without training anything.

All measures are of standardized features of test images, evenly spaced:
- Purity at k: the share of an image's k nearest images of "train", by cosine similarity, that have its label, averaged
  over test images.
- Silhouette (Rousseeuw 1987, doi:10.1016/0377-0427(87)90125-7) by cosine distance, among test images.
- Variance between classes: the share of the features' total variance that lies between the means of the classes.
- Clusters: as many as there are classes, found by spherical k-means among test images, against the classes.
- Hierarchy, if classes are named so, such as "animals/dog" in a table of labels: whether the class nearest to a class
  has the same parent, by the classes' mean features.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_core.evaluation.clustering import agreement, nearest_siblings, spherical_kmeans
from ssl_core.evaluation.features import FrozenFeatures
from ssl_core.evaluation.frozen_encoder import evenly_spaced
from ssl_core.evaluation.neighbors import nearest_neighbors, too_few_note
from ssl_core.evaluation.protocol import Protocol, Result


class SemanticSimilarity(Protocol):
    """Measures whether images of one class lie close together."""

    version = 2  # clusters
    on = "features"
    needs_labels = True
    headline, higher_is_better = "purity@20", True

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Sets the numbers of neighbors and of test images; neighbors are sought among all images of "train"."""

        neighbors: tuple[int, ...] = (1, 5, 20)
        images: int = 2000
        """test images that are looked at, evenly spaced"""

    def run(self, features: FrozenFeatures, config: Config, seed: int) -> Result:
        """Computes purity, silhouette, variance between classes, agreement of clusters and hierarchy.

        Args:
            features: The encoder's features, with labels.
            config: Numbers of neighbors and images.
            seed: Decides where clusters begin.

        Returns:
            Of the last stage: `purity@K` for each K (chance: the classes' shares), `silhouette` (-1 to 1) and `between`
            (0 to 1); `clusters/accuracy`, `clusters/nmi` and `clusters/ari`, see `agreement`; `purity@K/stageN` of
            stage N (counted from 1) for the largest K. Higher is better. If all test images are of one class,
            `silhouette`, `between` and clusters are left out, and a note says so. If classes of several parents have
            siblings, `hierarchy` and `hierarchy/chance`, see `nearest_siblings`.
        """
        rows = evenly_spaced(len(features.labels["test"]), config.images)
        truth = torch.from_numpy(features.labels["test"][rows])
        most = max(config.neighbors)

        def agreeing(stage: dict[str, np.ndarray]) -> Tensor:
            return _precision_at_k(
                stage["test"][rows], truth, stage["train"], torch.from_numpy(features.labels["train"]), most
            )

        stages = [agreeing(stage) for stage in features.stages]
        last = torch.from_numpy(features.stages[-1]["test"][rows])
        numbers = {
            **{f"purity@{k}": float(stages[-1][:, :k].mean()) for k in config.neighbors},
            **{f"purity@{most}/stage{i}": float(value.mean()) for i, value in enumerate(stages, start=1)},
        }
        notes = too_few_note(len(features.labels["train"]), config.neighbors)
        if len(truth.unique()) < 2:
            notes += ("silhouette, variance between classes and clusters need test images of two classes",)
        else:
            numbers |= {"silhouette": silhouette(last, truth), "between": between(last, truth)}
            found = agreement(spherical_kmeans(last, len(truth.unique()), seed).numpy(), truth.numpy())
            numbers |= {f"clusters/{name}": value for name, value in found.items()}
        if any("/" in name for name in features.class_names):
            numbers |= _hierarchy(last, truth, features.class_names)
        return Result(numbers, notes=notes)


def _hierarchy(x: Tensor, y: Tensor, names: tuple[str, ...]) -> dict[str, float]:
    kinds, which, counts = y.unique(return_inverse=True, return_counts=True)
    means = torch.zeros(len(kinds), x.shape[1]).index_add_(0, which, x) / counts[:, None]
    found = nearest_siblings(means, [names[kind] for kind in kinds.tolist()])
    return dict(zip(("hierarchy", "hierarchy/chance"), found)) if found else {}


def _precision_at_k(queries: np.ndarray, truth: Tensor, bank: np.ndarray, labels: Tensor, k: int) -> Tensor:
    """Returns [n, k] float32: 1 where the query's k-th nearest image has its label, else 0."""
    return torch.cat(
        [labels[rows] == truth[which, None] for which, _, rows in nearest_neighbors(queries, bank, k)]
    ).float()


def silhouette(x: Tensor, y: Tensor) -> float:
    """Returns the mean silhouette of labeled features by cosine distance.

    An image's silhouette is (b - a) / max(a, b), with a its mean distance to the other images of its class and b its
    mean distance to the images of the class that is nearest by it; 0 for an image alone in its class. Source: Rousseeuw
    1987, doi:10.1016/0377-0427(87)90125-7.

    Args:
        x: [n, d].
        y: [n] int64 labels.

    Returns:
        -1 to 1; 0 if there is only one class.
    """
    kinds, which, counts = y.unique(return_inverse=True, return_counts=True)
    if len(kinds) < 2:
        return 0.0
    unit = F.normalize(x.double(), dim=1)
    # distances are linear in the other image, so that sums over a class are distances to the sum of its images
    sums = torch.zeros(len(kinds), x.shape[1], dtype=unit.dtype).index_add_(0, which, unit)
    total = counts - unit @ sums.T
    mine = which[:, None] == torch.arange(len(kinds))
    a = (total[mine] - (1 - unit.square().sum(1))) / (counts[which] - 1).clamp(min=1)
    b = (total / counts).masked_fill(mine, torch.inf).amin(1)
    value = (b - a) / torch.maximum(a, b).clamp(min=1e-12)
    return float(torch.where(counts[which] > 1, value, 0.0).mean())


def between(x: Tensor, y: Tensor) -> float:
    """Returns the share of variance that lies between classes: the trace of their scatter over that of all scatter.

    Args:
        x: [n, d].
        y: [n] int64 labels.

    Returns:
        0 to 1; 0 if all rows are equal.
    """
    kinds, which, counts = y.unique(return_inverse=True, return_counts=True)
    x = x.double() - x.double().mean(0)
    means = torch.zeros(len(kinds), x.shape[1], dtype=x.dtype).index_add_(0, which, x) / counts[:, None]
    total = float(x.square().sum())
    return float((counts * means.square().sum(1)).sum()) / total if total > 0 else 0.0
