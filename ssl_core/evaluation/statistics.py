"""95 % intervals for accuracies and their differences, over test images and training seeds; p values for many pairs."""

import math
import sys
from dataclasses import dataclass

import numpy as np

Z_QUANTILE = 1.959964  # the normal distribution's 97.5 % quantile
DRAWS = 10_000
# Student's 97.5 % quantile by degrees of freedom, from 1
T_QUANTILES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


@dataclass(frozen=True)
class Interval:
    """A mean and where it lies with 95 % confidence, low <= mean <= high; `p` is two-sided, that it is 0. Of values
    that are not all finite, or of none, the three are NaN and p is 1."""

    mean: float
    low: float
    high: float
    p: float

    @property
    def ends(self) -> tuple[float, float]:
        return self.low, self.high


def widen_to_mean(mean: float, low: float, high: float) -> tuple[float, float]:
    """(low, high), widened to hold the mean where rounding has put an end on its wrong side."""
    return min(low, mean), max(high, mean)


def wilson_interval(correct: np.ndarray) -> tuple[float, float]:
    """[n] bool -> (low, high) for the share of True (Wilson 1927): honest near 0 and 1 too; (0, 1) for no image."""
    if not len(correct):
        return 0.0, 1.0
    n, p = len(correct), float(correct.mean())
    center = (p + Z_QUANTILE**2 / (2 * n)) / (1 + Z_QUANTILE**2 / n)
    half = Z_QUANTILE / (1 + Z_QUANTILE**2 / n) * (p * (1 - p) / n + Z_QUANTILE**2 / (4 * n**2)) ** 0.5
    return widen_to_mean(p, max(0.0, center - half), min(1.0, center + half))


def two_way_bootstrap(values: np.ndarray, draws: int = DRAWS) -> Interval:
    """[seeds, n] -> the mean over training seeds and test images, with a percentile bootstrap that draws seeds and
    images independently of each other (the pigeonhole bootstrap of Owen 2007, doi:10.1214/07-AOAS122).

    For a difference, hand the difference of two encoders for the same seed and image: pairing cancels what makes an
    image easy, or a seed lucky, for both. With one seed it speaks of test images only. The same values always give
    the same interval.
    """
    seeds, n = values.shape
    if not (values.size and np.isfinite(values).all()):
        return Interval(math.nan, math.nan, math.nan, 1.0)
    # images with the same values for all seeds are one kind: drawing how many come of each kind is drawing images
    kinds, counts = np.unique(values, axis=1, return_counts=True)
    rng = np.random.default_rng(0)
    images = rng.multinomial(n, counts / n, size=draws) / n  # [draws, kinds]
    chosen = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws) / seeds
    means = ((images @ kinds.T.astype(np.float64)) * chosen).sum(1)
    low, high = np.quantile(means, (0.025, 0.975))
    beyond = min((means <= 0).sum(), (means >= 0).sum())
    # one more than was drawn, as if the data themselves were a draw: never 0 (Davison and Hinkley 1997, section 4.2)
    p = 2 * (1 + beyond) / (1 + draws)
    spread = float(means.std())
    # Draws are too few to see a tail, but the mean of many images is normal. The mean of a few seeds is not.
    if seeds == 1 and not beyond and spread > 0:
        p = min(p, max(sys.float_info.min, math.erfc(abs(means.mean()) / spread / math.sqrt(2))))
    mean = float(values.mean())
    return Interval(mean, *widen_to_mean(mean, float(low), float(high)), min(1.0, float(p)))


def t_interval(values: np.ndarray) -> tuple[float, float]:
    """[seeds] -> (low, high) for their mean, by Student's t; without bounds for one seed, and NaN for values that are
    not all finite, or for none."""
    n, mean = len(values), float(values.mean()) if len(values) else math.nan
    if n < 2 or not np.isfinite(values).all():
        return (-math.inf, math.inf) if math.isfinite(mean) else (math.nan, math.nan)
    half = (T_QUANTILES[n - 2] if n - 2 < len(T_QUANTILES) else Z_QUANTILE) * values.std(ddof=1) / n**0.5
    return widen_to_mean(mean, float(mean - half), float(mean + half))


def paired_difference(better: np.ndarray, base: np.ndarray) -> Interval:
    """Two [seeds, n] bool for the same seeds and images -> the difference of their shares of True."""
    return two_way_bootstrap(better.astype(np.int8) - base.astype(np.int8))


def holm(ps: list[float]) -> list[float]:
    """p values of several tests -> adjusted so that the chance of any false finding stays below a level (Holm 1979)."""
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        largest = max(largest, (len(ps) - rank) * ps[i])
        adjusted[i] = min(1.0, largest)
    return adjusted
