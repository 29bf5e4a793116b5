"""Computes how accuracy changes with the cost of training, with intervals over test images and training seeds."""

import math
from dataclasses import dataclass

import numpy as np

from ssl_core.evaluation.statistics import DRAWS, Interval, two_way_bootstrap


def gain_per_doubling(costs: np.ndarray, correct: np.ndarray) -> Interval:
    """Returns how much accuracy rises for each doubling of the cost: the slope of a least-squares line.

    The slope is a weighted sum of the accuracies, so that each test image has its share of it, of which
    `two_way_bootstrap` makes the interval. All encoders are paired by seed and image.

    Args:
        costs: [k], of k encoders, k >= 2, not all equal.
        correct: [k, seeds, n] bool, which test images they are right on.

    Returns:
        A difference of accuracies; p is of no change.
    """
    x = np.log2(costs) - np.log2(costs).mean()
    return two_way_bootstrap(np.tensordot(x / (x**2).sum(), correct.astype(np.float64), 1).round(12))


@dataclass(frozen=True)
class Crossing:
    """Says at which cost one recipe overtakes another, with the interval that it lies in with 95 % confidence.

    Attributes:
        cost: Interpolated between two costs.
        low: The interval's lower end; 0 where it may be below the smallest cost.
        high: The interval's upper end; infinite where it may be above the largest.
    """

    cost: float
    low: float
    high: float


def crossing(costs: np.ndarray, better: np.ndarray, worse: np.ndarray, draws: int = DRAWS) -> Crossing | None:
    """Finds the cost from which on the first recipe is the better one, linear in the logarithm of the cost.

    The interval is a percentile bootstrap of seeds and images, drawn independently (Owen 2007) and alike for all costs:
    in each draw the last change of the sign of the difference is looked for.

    Args:
        costs: [k], ascending, k >= 2.
        better: [k, seeds, n] bool, which test images the recipe is right on that is better at the largest cost.
        worse: [k, seeds, n] bool, of the other one.
        draws: Bootstrap samples.

    Returns:
        Where it overtakes the other; None if it is better at all costs, or not at the largest.
    """
    more = better.astype(np.int8) - worse.astype(np.int8)
    k, seeds, n = more.shape
    place = _last_change(np.log2(costs), more.mean((1, 2))[None])[0]
    if not math.isfinite(place):
        return None
    # images with the same differences everywhere are one kind: drawing how many come of each kind is drawing images
    kinds, counts = np.unique(more.reshape(k * seeds, n), axis=1, return_counts=True)
    rng = np.random.default_rng(0)
    images = rng.multinomial(n, counts / n, size=draws) / n
    chosen = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws) / seeds
    means = (images @ kinds.T.astype(np.float64)).reshape(draws, k, seeds)
    found = _last_change(np.log2(costs), (means * chosen[:, None]).sum(2))
    low, high = np.quantile(found, (0.025, 0.975), method="inverted_cdf")  # infinite ones are not interpolated
    return Crossing(2.0**place, min(2.0**low, 2.0**place), max(2.0**high, 2.0**place))


def _last_change(x: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """Returns where differences become positive for good, [draws].

    Args:
        x: [k], ascending.
        difference: [draws, k].

    Returns:
        The place between two of `x`; -infinity where all differences are positive, infinity where the last is not.
    """
    negative = difference <= 0
    k = len(x)
    last = k - 1 - negative[:, ::-1].argmax(1)  # the last place with a negative difference
    inside = negative.any(1) & (last < k - 1)
    i = np.where(inside, last, 0)
    rows = np.arange(len(difference))
    before, after = difference[rows, i], difference[rows, i + 1]
    share = np.divide(-before, after - before, out=np.zeros(len(rows)), where=inside)
    return np.where(inside, x[i] + share * (x[i + 1] - x[i]), np.where(negative.any(1), np.inf, -np.inf))
