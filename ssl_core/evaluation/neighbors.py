"""Finds nearest neighbors by cosine similarity, exactly and without a second copy of the features."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

ROWS = 500  # queries at once: their similarities to 50,000 images take 100 MB


def nearest_neighbors(queries: np.ndarray, bank: np.ndarray, k: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Finds the rows of a bank that have the highest cosine similarity to each query.

    A row of zeros has the similarity 0 to everything.

    Args:
        queries: [n, d] float32.
        bank: [m, d] float32.
        k: Neighbors of each query; at most m are returned.

    Yields:
        For each ROWS queries: which rows of `queries`; similarities, [b, k] float32, highest first; rows of `bank`,
        [b, k] int64.
    """
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
    """Returns a note on numbers of neighbors that are more than there are training images.

    Args:
        images: The number of training images.
        neighbors: Numbers of neighbors asked for.

    Returns:
        One sentence, or nothing if all are at most `images`.
    """
    more = " and ".join(str(k) for k in neighbors if k > images)
    return (f"fewer training images than {more} neighbors: all {images} count",) if more else ()
