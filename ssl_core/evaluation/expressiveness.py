"""Measures, without labels, how much features can express and how easily that is learned."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_core.evaluation.clustering import spherical_kmeans

FIRST_RANK, LAST_RANK = 11, 100  # of the eigenvalues that a power law is fitted to, as in the package reptrix
FEWEST_RANKS = 10


def alpha_req(z: Tensor) -> float | None:
    """Returns the exponent with which the eigenvalues of the features' covariance fall: alpha-ReQ.

    Eigenvalue i is taken for proportional to i^-alpha; a line is fitted to logarithms, by least squares with weights
    1/i. Near 1 is good for transfer by the source, larger means fewer directions. Source: Agrawal et al. 2022,
    "alpha-ReQ: assessing representation quality in self-supervised learning by measuring eigenspectrum decay"
    (NeurIPS), with the weights of Stringer et al. 2019.

    Args:
        z: [n, d] float64.

    Returns:
        The exponent; None if fewer than FEWEST_RANKS of the eigenvalues from FIRST_RANK on are positive.
    """
    values = torch.linalg.svdvals(z - z.mean(0)).square()
    values = values[values > values.amax() * 1e-12][FIRST_RANK - 1 : LAST_RANK]
    if len(values) < FEWEST_RANKS:
        return None
    ranks = torch.arange(FIRST_RANK, FIRST_RANK + len(values), dtype=z.dtype)
    weights = (1 / ranks) / (1 / ranks).sum()
    x, y = ranks.log(), values.log()
    x, y = x - (weights * x).sum(), y - (weights * y).sum()
    return -float((weights * x * y).sum() / (weights * x * x).sum())


def intrinsic_dimension(z: Tensor) -> float | None:
    """Returns the dimension of the manifold that features lie on, from the two nearest neighbors of each.

    The ratio of the distances to the second and to the first neighbor has a Pareto distribution, whose exponent is the
    dimension, here by maximum likelihood. Source: Facco et al. 2017, doi:10.1038/s41598-017-11873-y (TwoNN).

    Args:
        z: [n, d] float64; of rows that are equal only one counts.

    Returns:
        The dimension; None if fewer than three rows differ, or neighbors are all equally far.
    """
    z = z.unique(dim=0)
    if len(z) < 3:
        return None
    nearest = torch.cat([torch.cdist(rows, z).topk(3, 1, largest=False).values[:, 1:] for rows in z.split(512)])
    logs = (nearest[:, 1] / nearest[:, 0].clamp(min=1e-300)).log()
    total = float(logs.sum())
    return (len(z) - 1) / total if total > 0 else None  # n - 1: without bias


def cluster_learnability(z: Tensor, clusters: int, seed: int) -> float:
    """Returns how fast the nearest neighbor learns which cluster a feature belongs to: cluster learnability.

    Features come in a random order, and each is predicted from those before it, by cosine similarity; the share of
    right predictions is the area under the learning curve. Clusters are those of spherical k-means. Source: Lu et al.
    2022 (arXiv:2206.01251), who add it to the intrinsic dimension; their clusters and neighbors may be others.

    Args:
        z: [n, d] float64.
        clusters: For k-means.
        seed: Decides the order, and where k-means begins.
    """
    z = F.normalize(z[torch.randperm(len(z), generator=torch.Generator().manual_seed(seed))], dim=1)
    which = spherical_kmeans(z.float(), min(clusters, len(z)), seed)
    right = 0
    for first in range(0, len(z), 512):
        rows = torch.arange(first, min(first + 512, len(z)))
        far = torch.cdist(z[rows], z[: rows[-1] + 1])
        far = far.masked_fill(torch.arange(far.shape[1]) >= rows[:, None], torch.inf)
        found = which[far.argmin(1)] == which[rows]
        right += int(found[rows > 0].sum())  # the first has none before it
    return right / max(1, len(z) - 1)
