"""Finds clusters of features by k-means."""

import torch
from torch import Tensor


def kmeans(x: Tensor, count: int, seed: int, iterations: int = 50) -> Tensor:
    """Returns which cluster each row belongs to, [n] int64: k-means that begins with k-means++.

    Sources: Lloyd 1982, doi:10.1109/TIT.1982.1056489; Arthur and Vassilvitskii 2007 for where it begins.

    Args:
        x: [n, d].
        count: Clusters, at most n. Some may stay empty where rows are equal.
        seed: Decides where it begins.
        iterations: After which it ends if it has not converged.
    """
    generator = torch.Generator().manual_seed(seed)
    centers = x[torch.randint(len(x), (1,), generator=generator)]
    nearest = torch.cdist(x, centers)[:, 0].square()
    for _ in range(count - 1):
        weights = nearest if bool((nearest > 0).any()) else torch.ones_like(nearest)
        centers = torch.cat([centers, x[torch.multinomial(weights, 1, generator=generator)]])
        nearest = torch.minimum(nearest, torch.cdist(x, centers[-1:])[:, 0].square())
    which = torch.full((len(x),), -1)
    for _ in range(iterations):
        before, which = which, torch.cdist(x, centers).argmin(1)
        if torch.equal(before, which):
            break
        sizes = torch.bincount(which, minlength=count)[:, None]
        sums = torch.zeros_like(centers).index_add_(0, which, x)
        centers = torch.where(sizes > 0, sums / sizes.clamp(min=1), centers)
    return which
