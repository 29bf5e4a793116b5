"""Measures how many directions features use, without labels: whether the representation has collapsed.

Features are the last stage's map of test images, averaged over its cells, in float64, not standardized.
- RankMe (Garrido et al. 2023, arXiv:2210.02885): the effective rank of the matrix of features, exp of the entropy of
  its singular values' shares. Rows are not centered.
- Spread (Chen and He 2021, arXiv:2011.10566, figure 2): the standard deviation of L2-normalized features over images,
  averaged over coordinates, times the root of their number.
- LiDAR (Thilak et al. 2023, arXiv:2312.04000): the effective rank of the linear discriminant analysis matrix whose
  classes are images and whose samples are their augmented views.
- Alpha-ReQ, intrinsic dimension and cluster learnability: see ssl_core/evaluation/expressiveness.py.
- DSE (Dai et al. 2025, arXiv:2510.17299), of the cells of the deepest map of several: whether they lie in clusters that
  are far from each other and small, and in how many directions. It is meant to go with dense transfer.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.random import RandomBits
from ssl_core.evaluation.cell_clusters import cluster_structure
from ssl_core.evaluation.expressiveness import alpha_req, cluster_learnability, intrinsic_dimension
from ssl_core.evaluation.frozen_encoder import FrozenEncoder
from ssl_core.evaluation.protocol import Protocol, Result
from ssl_core.evaluation.transforms import augmented


class Collapse(Protocol):
    """Measures whether features have collapsed, what they can express, and how the cells of maps are structured."""

    version = 3  # DSE, alpha-ReQ, intrinsic dimension and cluster learnability
    on = "encoder"
    needs_labels = False
    headline, higher_is_better = "rankme", True

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Sets how many images and views are measured.

        No measure can exceed the number of images that it is computed from, nor the features' width.
        """

        images: int = 2000
        """test images for RankMe and the spread; RankMe's authors find 25,600 enough for 2,048 features"""
        clean: int = 100
        """test images that LiDAR tells apart"""
        views: int = 10
        """random views of each"""
        clusters: int = 100
        """clusters of test images whose learnability is measured"""
        dense: int = 128
        """test images for DSE"""
        cells: int = 14
        """cells along a side of their maps at most: a larger map is averaged"""

    def run(self, model: FrozenEncoder, config: Config, seed: int) -> Result:
        """Computes RankMe, spread, LiDAR, alpha-ReQ, intrinsic dimension, cluster learnability and DSE.

        Args:
            model: The encoder with its images.
            config: Numbers of images and views.
            seed: Decides the augmented views, and the clusters of DSE.

        Returns:
            `rankme` and `lidar`, from 1 (collapsed) to `width`, the features' width; `std`, the spread: 0 is collapsed,
            1 spread evenly; `alpha`, `dimension` and `learnability` (0 to 1), the first two only where there are enough
            different images and directions to compute them; `dse`, higher for a better structure, with its parts,
            unless all maps are of one cell. With a single test image there is `width` alone, and a note says so.
        """
        z = torch.cat([model.pool(images)[-1].cpu() for images, _ in model.images("test", config.images)]).double()
        width = {"width": float(z.shape[1])}
        if len(z) < 2:  # by construction 1, 0 and undefined: as if it had collapsed
            return Result(width, notes=("one test image cannot tell a collapsed encoder from another",))
        structure = dse(_cells(model, config), seed)
        numbers = {"rankme": rankme(z), "std": spread(z), "lidar": lidar(_views(model, config, seed))}
        for name, value in (("alpha", alpha_req(z)), ("dimension", intrinsic_dimension(z))):
            numbers |= {} if value is None else {name: value}
        numbers["learnability"] = cluster_learnability(z, config.clusters, seed)
        return Result({**numbers, **structure, **width})


def _views(model: FrozenEncoder, config: Collapse.Config, seed: int) -> Tensor:
    """Returns the features of random views of test images, [images, views, width]."""
    rows = []
    for images, ids in model.numbered_images("test", config.clean):
        draws = (RandomBits(ids, torch.full_like(ids, view), seed) for view in range(config.views))
        rows.append(torch.stack([model.pool(augmented(images, draw))[-1].cpu() for draw in draws], 1))
    return torch.cat(rows).double()


def _cells(model: FrozenEncoder, config: Collapse.Config) -> Tensor:
    """Returns the cells of the deepest map of several, of test images, [images, cells, width]."""
    rows = []
    for images, _ in model.images("test", config.dense):
        one = model.feature_maps(images)[model.last_map]
        sides = min(config.cells, one.shape[2]), min(config.cells, one.shape[3])
        rows.append(F.adaptive_avg_pool2d(one, sides).cpu())
    return torch.cat(rows).double().flatten(2).transpose(1, 2)


def rankme(z: Tensor) -> float:
    """Returns the effective rank of features, from 1 to min(n, d): RankMe (Garrido et al. 2023, arXiv:2210.02885).

    Args:
        z: [n, d].
    """
    return _effective_rank(torch.linalg.svdvals(z))


def spread(z: Tensor) -> float:
    """Returns the mean standard deviation of the coordinates of z / |z|, times the root of their number.

    Source: Chen and He 2021 (arXiv:2011.10566, figure 2).

    Args:
        z: [n, d].

    Returns:
        0 if all rows have the same direction, 1 if directions are spread evenly around the origin.
    """
    return float(F.normalize(z, dim=1).std(0, correction=0).mean() * z.shape[1] ** 0.5)


def lidar(z: Tensor, delta: float = 1e-4) -> float:
    """Returns the effective rank of linear discriminant analysis: LiDAR (Thilak et al. 2023, arXiv:2312.04000).

    It is that of Sw^-1/2 Sb Sw^-1/2, with Sb the covariance of the images' means and Sw the covariance of views around
    their image's mean, plus `delta` on the diagonal.

    Args:
        z: [n, q, d], features of q views of each of n images.
        delta: Makes Sw invertible.
    """
    means = z.mean(1)
    centered, within = means - means.mean(0), (z - means[:, None]).flatten(0, 1)
    between = centered.T @ centered / (len(z) - 1)
    within = within.T @ within / (len(z) * (z.shape[1] - 1))
    values, vectors = torch.linalg.eigh(within + delta * torch.eye(z.shape[2], dtype=z.dtype))
    whitening = vectors * values.rsqrt() @ vectors.T
    return _effective_rank(torch.linalg.eigvalsh(whitening @ between @ whitening).clamp(min=0))


def dse(cells: Tensor, seed: int) -> dict[str, float]:
    """Returns the dense representation structure estimator of L2-normalized cells (Dai et al. 2025, arXiv:2510.17299).

    It is `inter` - `intra` + `dim`: the first two are those of `cluster_structure`, the last is the effective rank of
    one cell of each image over the most that it can be, averaged over cells that are shuffled in each image. To choose
    among checkpoints of one training the authors give `dim` the weight by which its standard deviation over these
    equals that of the rest; for a single encoder it is 1, as in their code.

    Args:
        cells: [images, n, d].
        seed: Decides the clusters' first centroids, and which cells of different images are looked at together.

    Returns:
        `dse`, higher for a better structure, and its parts, `dse/inter`, `dse/intra` and `dse/dim`; nothing if n is 1.
    """
    if cells.shape[1] < 2:
        return {}
    cells, generator = F.normalize(cells, dim=-1), torch.Generator().manual_seed(seed)
    inter, intra = cluster_structure(cells, generator)
    shuffled = torch.stack([image[torch.randperm(len(image), generator=generator)] for image in cells], 1)
    dim = sum(rankme(rows) / min(rows.shape) for rows in shuffled) / len(shuffled)
    return {"dse": inter - intra + dim, "dse/inter": inter, "dse/intra": intra, "dse/dim": dim}


def _effective_rank(values: Tensor, eps: float = 1e-7) -> float:
    """Returns exp of the entropy of the shares that non-negative values have of their sum; 1 if all are zero.

    Source: Roy and Vetterli 2007, with the `eps` of RankMe's equation added to each share.
    """
    shares = values / values.sum().clamp(min=torch.finfo(values.dtype).tiny) + eps
    return float((-(shares * shares.log()).sum()).exp())
