"""Has the representation collapsed? How many directions features use, without labels.

RankMe (Garrido et al. 2023, arXiv:2210.02885), the spread of L2-normalized features (Chen and He 2021,
arXiv:2011.10566, figure 2) and LiDAR (Thilak et al. 2023, arXiv:2312.04000), on the last stage's pooled map.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.random import RandomBits
from ssl_core.evaluation.features import Result
from ssl_core.evaluation.frozen_encoder import FrozenEncoder
from ssl_core.evaluation.transforms import augmented

version = 2  # views are those of pretraining
on = "encoder"
labels = False
headline, higher = "rankme", True


@dataclass(frozen=True, kw_only=True)
class Config:
    """No measure can exceed the number of images that it looks at, nor the features' width."""

    images: int = 2000
    """test images for RankMe and the spread; RankMe's authors find 25,600 enough for 2,048 features"""
    clean: int = 100
    """test images that LiDAR tells apart"""
    views: int = 10
    """random views of each"""


def run(model: FrozenEncoder, config: Config, seed: int) -> Result:
    """`rankme` and `lidar` are effective ranks: 1 is collapsed, the features' width `width` is the most. `std` is the
    mean deviation of normalized features times the root of their width: 0 is collapsed, 1 spread evenly."""
    z = torch.cat([model.pool(images)[-1].cpu() for images, _ in model.images("test", config.images)]).double()
    width = {"width": float(z.shape[1])}
    if len(z) < 2:  # by construction 1, 0 and undefined: as if it had collapsed
        return Result(width, notes=("one test image cannot tell a collapsed encoder from another",))
    return Result({"rankme": rankme(z), "std": spread(z), "lidar": lidar(_views(model, config, seed)), **width})


def _views(model: FrozenEncoder, config: Config, seed: int) -> Tensor:
    """[images, views, width]"""
    rows = []
    for images, ids in model.numbered_images("test", config.clean):
        draws = (RandomBits(ids, torch.full_like(ids, view), seed) for view in range(config.views))
        rows.append(torch.stack([model.pool(augmented(images, draw))[-1].cpu() for draw in draws], 1))
    return torch.cat(rows).double()


def rankme(z: Tensor) -> float:
    """z [n, d] -> exp of the entropy of its singular values' shares."""
    return _effective_rank(torch.linalg.svdvals(z))


def spread(z: Tensor) -> float:
    """z [n, d] -> the mean over the d features of the standard deviation of z / |z|, times the root of d."""
    return float(F.normalize(z, dim=1).std(0, correction=0).mean() * z.shape[1] ** 0.5)


def lidar(z: Tensor, delta: float = 1e-4) -> float:
    """z [n, q, d], q views of each of n images -> the effective rank of linear discriminant analysis: of
    Sw^-1/2 Sb Sw^-1/2, with Sb the covariance of the images' means and Sw that of views around them plus `delta`."""
    means = z.mean(1)
    centered, within = means - means.mean(0), (z - means[:, None]).flatten(0, 1)
    between = centered.T @ centered / (len(z) - 1)
    within = within.T @ within / (len(z) * (z.shape[1] - 1))
    values, vectors = torch.linalg.eigh(within + delta * torch.eye(z.shape[2], dtype=z.dtype))
    whitening = vectors * values.rsqrt() @ vectors.T
    return _effective_rank(torch.linalg.eigvalsh(whitening @ between @ whitening).clamp(min=0))


def _effective_rank(values: Tensor, eps: float = 1e-7) -> float:
    """Non-negative `values` -> exp of the entropy of their shares (Roy and Vetterli 2007); 1 if all are zero."""
    shares = values / values.sum().clamp(min=torch.finfo(values.dtype).tiny) + eps
    return float((-(shares * shares.log()).sum()).exp())
