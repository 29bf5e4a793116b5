"""Measures how well clusters of a map's cells are separated, without labels: the first part of DSE.

Cells are put into clusters by k-means, which stand for classes: LOCAL of each image, and GLOBAL of each group of GROUP
images.

Source: Dai et al. 2025, arXiv:2510.17299, and their code, https://github.com/EldercatSAM/SSL-Degradation. Their first
centroids are drawn by distance, these by its square (k-means++, Arthur and Vassilvitskii 2007).
"""

import torch
from torch import Tensor

LOCAL, GLOBAL, GROUP = 3, 24, 8
ITERATIONS = 20  # of k-means
EQUAL = 1e-6  # of directions, a mean distance below which they differ by rounding


def cluster_structure(cells: Tensor, generator: torch.Generator) -> tuple[float, float]:
    """Returns how far clusters of cells are from each other, and how large they are.

    Both are over the mean distance of a cell to the mean of all, and 0 if all cells are equal.

    Args:
        cells: [images, n, d], n at least 2, of length 1.
        generator: Draws the first centroids.

    Returns:
        The mean distance of a cell to the nearest centroid of another cluster of its group; and the mean `cluster_size`
        of images' clusters and that of groups' clusters, averaged.
    """
    scale = float((cells - cells.mean((0, 1))).norm(dim=-1).mean())
    local, apart, together = [], [], []
    for image in cells:
        local.append(_mean(_sizes(image, kmeans(image, LOCAL, generator)[1])))
    for group in cells.split(GROUP):
        points = group.flatten(0, 1)
        centroids, nearest = kmeans(points, GLOBAL, generator)
        others = torch.cdist(points, centroids).scatter_(1, nearest[:, None], torch.inf)
        apart.append(float(others.amin(1).mean()))
        together += _sizes(points, nearest)
    if scale < EQUAL:
        return 0.0, 0.0
    return _mean(apart) / scale, (_mean(local) + _mean(together)) / (2 * scale)


def kmeans(x: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Puts points into clusters by k-means, with first centroids by k-means++.

    Args:
        x: [n, d].
        count: Of clusters, at most n. One that becomes empty keeps its centroid.
        generator: Draws the first centroids.

    Returns:
        The centroids, [clusters, d], and each point's cluster, [n] int64.
    """
    chosen = torch.randint(len(x), (1,), generator=generator)
    squares = torch.full((len(x),), torch.inf, dtype=x.dtype)
    while len(chosen) < min(count, len(x)):
        squares = torch.minimum(squares, (x - x[chosen[-1]]).square().sum(1))
        weights = squares if squares.any() else torch.ones_like(squares).index_fill_(0, chosen, 0)
        chosen = torch.cat([chosen, torch.multinomial(weights, 1, generator=generator)])
    centroids = x[chosen]
    nearest = torch.cdist(x, centroids).argmin(1)
    for _ in range(ITERATIONS):
        counts = torch.bincount(nearest, minlength=len(centroids))[:, None]
        sums = torch.zeros_like(centroids).index_add_(0, nearest, x)
        centroids = torch.where(counts > 0, sums / counts.clamp(min=1), centroids)
        before, nearest = nearest, torch.cdist(x, centroids).argmin(1)
        if (nearest == before).all():
            break
    return centroids, nearest


def cluster_size(x: Tensor) -> float:
    """Returns the size of a cluster of m points, [m, d].

    It is the sum of the singular values of the points less their mean, over the root of max(m - 1, d).
    """
    return float(torch.linalg.svdvals(x - x.mean(0)).sum()) / max(len(x) - 1, x.shape[1]) ** 0.5


def _sizes(x: Tensor, nearest: Tensor) -> list[float]:
    """Returns the size of each cluster of more than one point."""
    clusters = [x[nearest == i] for i in nearest.unique()]
    return [cluster_size(points) for points in clusters if len(points) > 1]


def _mean(values: list[float]) -> float:
    return sum(values) / max(1, len(values))
