"""Computes 95 % intervals for accuracies and their differences, over test images and training seeds, and p values."""

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
    """Holds a mean and the interval that it lies in with 95 % confidence, low <= mean <= high.

    Of values that are not all finite, or of no values, the first three are NaN and `p` is 1.

    Attributes:
        mean: The mean.
        low: The interval's lower end.
        high: The interval's upper end.
        p: The two-sided p value of the hypothesis that the mean is 0.
    """

    mean: float
    low: float
    high: float
    p: float

    @property
    def ends(self) -> tuple[float, float]:
        """Returns (low, high)."""
        return self.low, self.high


def widen_to_mean(mean: float, low: float, high: float) -> tuple[float, float]:
    """Returns (low, high), widened to contain the mean if rounding has put an end on its wrong side."""
    return min(low, mean), max(high, mean)


def wilson_interval(correct: np.ndarray) -> tuple[float, float]:
    """Returns Wilson's score interval for a share, which keeps its coverage near 0 and 1, too.

    Source: Wilson 1927, doi:10.1080/01621459.1927.10502953.

    Args:
        correct: [n] bool.

    Returns:
        (low, high) for the share of True, within 0 to 1; (0, 1) if n is 0.
    """
    if not len(correct):
        return 0.0, 1.0
    n, p = len(correct), float(correct.mean())
    center = (p + Z_QUANTILE**2 / (2 * n)) / (1 + Z_QUANTILE**2 / n)
    half = Z_QUANTILE / (1 + Z_QUANTILE**2 / n) * (p * (1 - p) / n + Z_QUANTILE**2 / (4 * n**2)) ** 0.5
    return widen_to_mean(p, max(0.0, center - half), min(1.0, center + half))


def two_way_bootstrap(values: np.ndarray, draws: int = DRAWS) -> Interval:
    """Computes the mean over training seeds and test images with a two-way percentile bootstrap.

    Seeds and images are drawn independently of each other, both with replacement. For the difference of two encoders,
    pass the differences for the same seed and image: pairing cancels what makes an image easy, or a seed lucky, for
    both. With one seed the interval speaks of test images only. The generator's seed is fixed: the same values always
    give the same interval. Source: the pigeonhole bootstrap (Owen 2007, doi:10.1214/07-AOAS122).

    Args:
        values: [seeds, n], numbers or bool.
        draws: Bootstrap samples.

    Returns:
        The mean, its interval from the 2.5 % and 97.5 % quantiles, and p: twice the share of samples on the other side
        of 0, with the data counted as one more sample (Davison and Hinkley 1997, section 4.2). If there is one seed and
        no sample lies on the other side, p is that of a normal distribution with the samples' mean and deviation, where
        that is smaller.
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
    return _percentiles(float(values.mean()), means, seeds)


def bootstrap_of_draws(values: np.ndarray, drawn: np.ndarray) -> Interval:
    """Computes the mean over training seeds of a number that is no mean over images, such as an average precision.

    Seeds are drawn with replacement for each draw of images, as in `two_way_bootstrap`, of which all else holds, too. A
    number of drawn images, some of which are there twice, is not on average that of all: what it is too high by is
    taken off. For a difference, pass the differences for the same seed and draw.

    Args:
        values: [seeds], the number of all images.
        drawn: [seeds, draws], that of each draw of images, the same ones for all seeds.
    """
    seeds, draws = drawn.shape
    if not (drawn.size and np.isfinite(drawn).all() and np.isfinite(values).all()):
        return Interval(math.nan, math.nan, math.nan, 1.0)
    chosen = np.random.default_rng(0).multinomial(seeds, np.full(seeds, 1 / seeds), size=draws) / seeds
    means = ((values + (drawn.T - drawn.mean(1))) * chosen).sum(1)
    return _percentiles(float(values.mean()), means, seeds)


def _percentiles(mean: float, means: np.ndarray, seeds: int) -> Interval:
    """Returns the interval of bootstrap samples' means, [draws], and p as `two_way_bootstrap` says."""
    draws = len(means)
    low, high = np.quantile(means, (0.025, 0.975))
    beyond = min((means <= 0).sum(), (means >= 0).sum())
    # one more than was drawn, as if the data themselves were a draw: never 0 (Davison and Hinkley 1997, section 4.2)
    p = 2 * (1 + beyond) / (1 + draws)
    spread = float(means.std())
    # Draws are too few to see a tail, but the mean of many images is normal. The mean of a few seeds is not.
    if seeds == 1 and not beyond and spread > 0:
        p = min(p, max(sys.float_info.min, math.erfc(abs(means.mean()) / spread / math.sqrt(2))))
    return Interval(mean, *widen_to_mean(mean, float(low), float(high)), min(1.0, float(p)))


def t_interval(values: np.ndarray) -> tuple[float, float]:
    """Returns Student's interval for the mean over training seeds.

    Args:
        values: [seeds].

    Returns:
        (low, high); infinite ends for one seed, NaN for values that are not all finite or for no values. With more than
        ten seeds the normal distribution's quantile takes the place of Student's.
    """
    n, mean = len(values), float(values.mean()) if len(values) else math.nan
    if n < 2 or not np.isfinite(values).all():
        return (-math.inf, math.inf) if math.isfinite(mean) else (math.nan, math.nan)
    half = (T_QUANTILES[n - 2] if n - 2 < len(T_QUANTILES) else Z_QUANTILE) * values.std(ddof=1) / n**0.5
    return widen_to_mean(mean, float(mean - half), float(mean + half))


def paired_difference(better: np.ndarray, base: np.ndarray) -> Interval:
    """Computes the difference of two encoders' accuracies with its interval, see `two_way_bootstrap`.

    Args:
        better: [seeds, n] bool, whether the first encoder's answer is right.
        base: [seeds, n] bool, the second encoder's for the same seeds and images.

    Returns:
        The share of True in `better` minus that in `base`.
    """
    return two_way_bootstrap(better.astype(np.int8) - base.astype(np.int8))


def holm(ps: list[float]) -> list[float]:
    """Adjusts the p values of several tests to keep the chance of any false finding below a level.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".

    Args:
        ps: p values, in any order.

    Returns:
        The adjusted p values in the same order, at most 1.
    """
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        largest = max(largest, (len(ps) - rank) * ps[i])
        adjusted[i] = min(1.0, largest)
    return adjusted
