"""Trends and crossings of accuracy over cost, against numpy and constructions with known answers."""

import math

import numpy as np
import pytest

from ssl_core.evaluation.statistics import paired_difference
from ssl_core.evaluation.trends import crossing, gain_per_doubling

RNG = np.random.default_rng(1)
COSTS = np.array([1e12, 2e12, 4e12, 8e12])


def answers(shares: list[float], seeds: int = 3, n: int = 2000) -> np.ndarray:
    """Answers that are right with these probabilities, [costs, seeds, n], alike in what is hard."""
    hard = RNG.random((1, 1, n))
    return (hard + 0.1 * RNG.normal(size=(len(shares), seeds, n))) < np.array(shares)[:, None, None]


def test_gain_is_the_slope_of_a_line():
    correct = answers([0.3, 0.42, 0.45, 0.6])
    found = gain_per_doubling(COSTS, correct)
    assert found.mean == pytest.approx(np.polyfit(np.log2(COSTS), correct.mean((1, 2)), 1)[0], rel=1e-9)
    assert 0 < found.low < found.mean < found.high


def test_gain_of_two_costs_is_their_difference():
    correct = answers([0.5, 0.52])
    found, other = gain_per_doubling(COSTS[:2], correct), paired_difference(correct[1], correct[0])
    assert (found.mean, *found.ends) == pytest.approx((other.mean, *other.ends), abs=2e-3)


def test_who_overtakes_whom():
    slow, fast = answers([0.3, 0.4, 0.5, 0.6]), answers([0.45, 0.45, 0.45, 0.45])
    found = crossing(COSTS, slow, fast)
    assert found and found.cost == pytest.approx(2e12 * 2**0.5, rel=0.1)
    assert 2e12 < found.low < found.cost < found.high < 4e12
    assert crossing(COSTS, fast, slow) is None  # which is behind in the end
    assert crossing(COSTS, answers([0.6] * 4), fast) is None  # which is ahead from the beginning


def test_a_place_between_two_costs_is_linear_in_the_logarithm():
    better, worse = np.zeros((2, 1, 100), bool), np.zeros((2, 1, 100), bool)
    worse[0, 0, :30] = better[1, 0, :10] = True  # -0.3 and +0.1: three quarters of the way
    assert crossing(COSTS[:2], better, worse).cost == pytest.approx(1e12 * 2**0.75)


def test_noise_has_no_sure_place():
    found = [crossing(COSTS, answers([0.5] * 4, 2, 200), answers([0.5] * 4, 2, 200)) for _ in range(8)]
    known = [one for one in found if one]
    assert known and all(one.low == 0 or math.isinf(one.high) for one in known)
