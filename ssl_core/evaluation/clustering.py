"""Finds clusters of features without labels, and compares clusters with classes."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

RESTARTS, ITERATIONS = 5, 100


def spherical_kmeans(x: Tensor, clusters: int, seed: int) -> Tensor:
    """Finds clusters of directions, by the cosine similarity of each row with the direction of its cluster's sum.

    The best of RESTARTS is taken, each begun as k-means++ (Arthur and Vassilvitskii 2007) and ended when no row changes
    its cluster, or after ITERATIONS. A cluster that is left empty begins anew at the row that fits worst. Source:
    Dhillon and Modha 2001, doi:10.1023/A:1007612920971.

    Args:
        x: [n, d] float32; a row of zeros is equally far from everything.
        clusters: How many, at most n.
        seed: Decides the first directions.

    Returns:
        [n] int64, the cluster of each row.
    """
    x, generator = F.normalize(x, dim=1), torch.Generator().manual_seed(seed)
    found = [_one_run(x, _spread(x, clusters, generator)) for _ in range(RESTARTS)]
    return max(found, key=lambda one: one[0])[1]


def _spread(x: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """Draws rows as the first directions, each with a chance by its squared distance from those before it."""
    far = torch.ones(len(x))
    rows = []
    for _ in range(clusters):
        weights = far if far.sum() > 0 else torch.ones(len(x))
        rows.append(int(torch.multinomial(weights, 1, generator=generator)))
        far = torch.minimum(far, (1 - x @ x[rows[-1]]).clamp(min=0))  # of unit rows, half the squared distance
    return x[rows]


def _one_run(x: Tensor, directions: Tensor) -> tuple[float, Tensor]:
    """Returns the sum of similarities that k-means reaches from these directions, and the clusters."""
    before, nearest, fits = None, torch.zeros(0), torch.zeros(0)
    for _ in range(ITERATIONS):
        fits, nearest = (x @ directions.T).max(1)
        if before is not None and torch.equal(nearest, before):
            break
        before = nearest
        sums = torch.zeros_like(directions).index_add_(0, nearest, x)
        empty = torch.bincount(nearest, minlength=len(directions)) == 0
        sums[empty] = x[fits.argsort()[: int(empty.sum())]]
        directions = F.normalize(sums, dim=1)
    return float(fits.sum()), nearest


def agreement(clusters: np.ndarray, classes: np.ndarray) -> dict[str, float]:
    """Compares clusters with classes.

    Args:
        clusters: [n] int64.
        classes: [n] int64, of at least two kinds.

    Returns:
        `accuracy`, the share of rows whose cluster stands for their class, where each cluster stands for one class at
        most, so that this share is largest (Kuhn 1955); `nmi`, their mutual information over the mean of their
        entropies; `ari`, the adjusted Rand index (Hubert and Arabie 1985, doi:10.1007/BF01908075): 0 for chance, 1 for
        clusters that are the classes.
    """
    from scipy.optimize import linear_sum_assignment  # takes half a second, which help need not wait for

    _, row, ours = np.unique(clusters, return_inverse=True, return_counts=True)
    _, column, theirs = np.unique(classes, return_inverse=True, return_counts=True)
    table = np.zeros((len(ours), len(theirs)))
    np.add.at(table, (row, column), 1)
    n = len(clusters)
    entropies = _entropy(ours / n) + _entropy(theirs / n)
    pairs, all_pairs = _pairs(table), _pairs(np.array([n]))
    expected = _pairs(ours) * _pairs(theirs) / all_pairs
    most = (_pairs(ours) + _pairs(theirs)) / 2
    return {
        "accuracy": float(table[linear_sum_assignment(table, maximize=True)].sum() / n),
        "nmi": float(2 * (entropies - _entropy(table.ravel() / n)) / entropies),
        "ari": float((pairs - expected) / (most - expected)) if most > expected else 1.0,
    }


def _entropy(shares: np.ndarray) -> float:
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())


def _pairs(counts: np.ndarray) -> float:
    """Returns how many pairs of rows are in one cell."""
    return float((counts * (counts - 1) / 2).sum())


def nearest_siblings(means: Tensor, names: list[str]) -> tuple[float, float] | None:
    """Returns how often the class nearest to a class has the same parent: the name before the last "/".

    Args:
        means: [classes, d], the mean features of each class.
        names: The classes' names.

    Returns:
        Among classes that have a sibling, the share whose nearest other class by cosine similarity is one, and what the
        share would be by chance; None if none has a sibling, or all have one parent.
    """
    parents = [name.rpartition("/")[0] or name for name in names]
    same = torch.tensor([[one == other for other in parents] for one in parents])
    siblings = same.sum(1) - 1
    asked = siblings > 0
    if same.all() or not asked.any():
        return None
    unit = F.normalize(means, dim=1)
    nearest = (unit @ unit.T).fill_diagonal_(-torch.inf).argmax(1)
    alike = same[torch.arange(len(names)), nearest]
    chance = siblings / (len(names) - 1)
    return float(alike[asked].float().mean()), float(chance[asked].mean())
