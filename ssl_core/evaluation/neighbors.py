"""Nearest neighbors by cosine similarity, exact, without a second copy of the bank."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

ROWS = 500  # queries at once: their similarities to 50,000 images take 100 MB


def nearest_neighbors(queries: np.ndarray, bank: np.ndarray, k: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """queries [n, d] and bank [m, d] float32 -> for each ROWS queries (which, similarities [b, k], rows of the bank
    [b, k] int64), nearest first; k shrinks to m. A row of zeros is similar to nothing: 0."""
    asked, kept = torch.from_numpy(queries), torch.from_numpy(bank)
    k = min(k, len(kept))
    # norms divide the similarities instead of the features: a normalized bank would be as large as the bank
    inverse = torch.cat([part.norm(dim=1) for part in kept.split(ROWS)]).clamp(min=1e-12).reciprocal()
    for first in range(0, len(asked), ROWS):
        which = slice(first, min(first + ROWS, len(asked)))
        # numpy's BLAS, which on AMD's processors multiplies twice as fast as torch's
        products = np.matmul(F.normalize(asked[which], dim=1).numpy(), bank.T)
        near = torch.from_numpy(products).mul_(inverse).topk(k, dim=1)
        yield which, near.values, near.indices


def too_few_note(images: int, neighbors: Iterable[int]) -> tuple[str, ...]:
    """A note for those numbers of neighbors that are more than there are training images."""
    more = " and ".join(str(k) for k in neighbors if k > images)
    return (f"fewer training images than {more} neighbors: all {images} count",) if more else ()
