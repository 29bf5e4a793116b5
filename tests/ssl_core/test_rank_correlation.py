"""Kendall's tau with groups and strata, against scipy and resampling by hand."""

import numpy as np
import pytest
from scipy.stats import kendalltau

from ssl_core.evaluation.rank_correlation import kendall

RNG = np.random.default_rng(3)


@pytest.mark.parametrize("ties", [False, True])
def test_tau_is_scipys(ties):
    x, y = RNG.normal(size=(2, 40))
    y = x + y
    if ties:
        x, y = x.round(), y.round()
    assert kendall(x, y, np.arange(40)).tau == pytest.approx(kendalltau(x, y).statistic, abs=1e-12)


def test_strata_compare_only_their_own_pairs():
    """Within each of three tasks the order is alike; across them it is the other way round."""
    task = np.repeat(np.arange(3), 5)
    x = np.tile(np.arange(5.0), 3) + 10 * task
    y = np.tile(np.arange(5.0), 3) - 10 * task
    assert kendall(x, y, np.arange(15), task).tau == 1.0
    assert kendall(x, y, np.arange(15)).tau == pytest.approx(kendalltau(x, y).statistic)
    assert kendall(x, y, np.arange(15)).tau < 0


def test_interval_is_that_of_drawing_groups():
    group = np.repeat(np.arange(12), 3)
    x = RNG.normal(size=12)[group] + 0.1 * RNG.normal(size=36)
    y = x + RNG.normal(size=12)[group]
    found = kendall(x, y, group)
    drawn = []
    for _ in range(3000):
        rows = np.concatenate([np.flatnonzero(group == g) for g in RNG.integers(0, 12, 12)])
        drawn.append(kendalltau(x[rows], y[rows]).statistic)
    assert (found.low, found.high) == pytest.approx(np.quantile(drawn, (0.025, 0.975)), abs=0.05)
    alone = kendall(x, y, np.arange(36))
    assert alone.high - alone.low < found.high - found.low and found.items == 36


def test_a_wider_interval_for_many_tests():
    x, y = RNG.normal(size=(2, 30))
    found = kendall(x, y, np.arange(30), tests=25)
    assert found.sure[0] < found.low < found.tau < found.high < found.sure[1]
    assert kendall(x, y, np.arange(30)).sure == (found.low, found.high)


def test_nothing_to_compare():
    x = np.arange(6.0)
    assert kendall(np.ones(6), x, np.arange(6)) is None and kendall(x, x, np.zeros(6)) is None
    assert kendall(x, x, np.arange(6), np.arange(6)) is None  # each in a stratum of its own
