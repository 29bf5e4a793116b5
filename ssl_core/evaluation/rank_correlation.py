"""Computes rank correlations of pairs of numbers that come in groups, with bootstrap intervals over groups."""

from dataclasses import dataclass

import numpy as np

from ssl_core.evaluation.statistics import widen_to_mean

DRAWS = 10_000
CHUNK = 500  # draws at a time, for memory


@dataclass(frozen=True)
class Correlation:
    """Holds Kendall's tau and the interval that it lies in.

    Attributes:
        tau: -1 to 1.
        low: The interval's lower end.
        high: The interval's upper end.
        sure: The ends of a wider one, which those of several tests keep to together with the same confidence
            (Bonferroni).
        items: How many items were compared.
    """

    tau: float
    low: float
    high: float
    sure: tuple[float, float]
    items: int


def kendall(
    x: np.ndarray,
    y: np.ndarray,
    groups: np.ndarray,
    strata: np.ndarray | None = None,
    tests: int = 1,
    draws: int = DRAWS,
) -> Correlation | None:
    """Computes Kendall's tau-b of pairs of numbers, with a percentile bootstrap that draws whole groups.

    Of all pairs of items, tau is the share that x and y order alike minus the share that they order differently, with
    the correction for ties of Kendall 1945, doi:10.1093/biomet/33.3.239. Items of one group, such as encoders of one
    training, are no independent witnesses: groups are drawn with replacement, each with all its items.

    Args:
        x: [n] numbers.
        y: [n] numbers.
        groups: [n] int64, the group of each item.
        strata: [n] int64; only pairs of items of one stratum are compared. None: all are.
        tests: How many correlations are looked at, for `sure`.
        draws: Bootstrap samples.

    Returns:
        The correlation; None where nothing can be compared since all of x, or of y, are ties, or there is one group.
    """
    alike = np.ones((len(x), len(x)), bool) if strata is None else strata[:, None] == strata
    sx, sy = (np.sign(of[:, None] - of) * alike for of in (x, y))
    parts = [sx * sy, sx * sx, sy * sy]
    both, one, other = (float(part.sum()) for part in parts)
    which, members = np.unique(groups, return_inverse=True)
    if one == 0 or other == 0 or len(which) < 2:
        return None
    belongs = np.zeros((len(which), len(x)))
    belongs[members, np.arange(len(x))] = 1
    pooled = [belongs @ part @ belongs.T for part in parts]  # summed over the pairs of two groups
    rng, found = np.random.default_rng(0), []
    for first in range(0, draws, CHUNK):
        size = min(CHUNK, draws - first)
        counts = rng.multinomial(len(which), np.full(len(which), 1 / len(which)), size=size).astype(np.float64)
        drawn = [((counts @ part) * counts).sum(1) for part in pooled]
        found.append(drawn[0] / np.sqrt(np.maximum(drawn[1] * drawn[2], 1e-300)))
    tau, beyond = float(both / np.sqrt(one * other)), 0.025 / tests
    low, high, lowest, highest = map(float, np.quantile(np.concatenate(found), (0.025, 0.975, beyond, 1 - beyond)))
    return Correlation(tau, *widen_to_mean(tau, low, high), widen_to_mean(tau, lowest, highest), len(x))
