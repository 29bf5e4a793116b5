"""Draws test images again and again to see how much a number depends on which ones there are.

These are numbers that are no means over images: a mean average precision, and a mean intersection over union.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

DRAWS = 1000
CELLS = 2**22  # how often an image was drawn, in one draw: so many numbers are held at a time


class _Ranking(NamedTuple):
    """How a class ranks images, as far down as one has the class; ranks with such an image are numbered from 0.

    Attributes:
        order: [m] int64, the images by falling score.
        starts: [ranks] int64, where in `order` the images begin that only this rank adds.
        hits: [p] int64, the images that have the class, in this order.
        hit_starts: [ranks] int64, where in `hits` those of a rank begin.
    """

    order: np.ndarray
    starts: np.ndarray
    hits: np.ndarray
    hit_starts: np.ndarray


def bootstrap_map(scores: np.ndarray, labels: np.ndarray, draws: int = DRAWS) -> np.ndarray:
    """Returns the mean average precision of images drawn with replacement, as many as there are: [draws] float32.

    A class of which no image is drawn does not count in the mean. For equally many images the same ones are drawn,
    whatever the scores: draws of several encoders are paired.

    Source: Efron 1979, doi:10.1214/aos/1176344552.

    Args:
        scores: [n, classes], higher for a more likely class.
        labels: [n, classes] bool.
        draws: How often.
    """
    rankings = [_ranked(score, truth) for score, truth in zip(scores.T, labels.T) if truth.any()]
    found = []
    for drawn in _draw_counts(len(labels), draws):
        counts = np.ascontiguousarray(drawn.T, np.float32)
        total, present = np.zeros(len(drawn)), np.zeros(len(drawn))
        for order, starts, hits, hit_starts in rankings:
            seen = np.add.reduceat(counts[order], starts).cumsum(0)
            added = np.add.reduceat(counts[hits], hit_starts)
            right = added.cumsum(0)
            total += (added * right / np.maximum(seen, 1)).sum(0) / np.maximum(right[-1], 1)
            present += right[-1] > 0
        found.append(total / np.maximum(present, 1))
    return np.concatenate(found).astype(np.float32)


def bootstrap_miou(intersections: np.ndarray, unions: np.ndarray, truth: np.ndarray, draws: int = DRAWS) -> np.ndarray:
    """Returns the mean intersection over union of images drawn with replacement, as many as there are: [draws] float32.

    Draws are those of `bootstrap_map`. A class of which no pixel is drawn does not count in the mean.

    Args:
        intersections: [n, classes], how many pixels of an image are of a class and are taken for it.
        unions: [n, classes], how many are of it or are taken for it.
        truth: [n, classes], how many are of it.
        draws: How often.
    """
    found = []
    for drawn in _draw_counts(len(truth), draws):
        counts = drawn.astype(np.float64)
        present = counts @ truth > 0
        shares = (counts @ intersections) / np.maximum(counts @ unions, 1)
        found.append(np.where(present, shares, 0).sum(1) / np.maximum(present.sum(1), 1))
    return np.concatenate(found).astype(np.float32)


def _draw_counts(n: int, draws: int) -> Iterator[np.ndarray]:
    """Yields how often each of `n` images is drawn, [some draws, n] int64, until there are all draws."""
    rng = np.random.default_rng(0)
    for rows in np.array_split(np.arange(draws), -(-draws * n // CELLS)):
        yield rng.multinomial(n, np.full(n, 1 / n), size=len(rows))


def _ranked(score: np.ndarray, truth: np.ndarray) -> _Ranking:
    """Returns the ranking by a class's scores, [n], of images that have it or not, [n] bool; equal scores share one."""
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1) + 1
    places = np.flatnonzero(truth[order])
    rank, hit_starts = np.unique(np.searchsorted(ends, places, side="right"), return_index=True)
    starts = np.append(0, ends[rank])
    return _Ranking(order[: starts[-1]], starts[:-1], order[places], hit_starts)
