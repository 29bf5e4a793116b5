"""Intervals: against published tables, closed forms, and a bootstrap written out."""

import numpy as np
import pytest

from ssl_core.evaluation.statistics import holm, paired_difference, t_interval, two_way_bootstrap, wilson_interval


@pytest.mark.parametrize(
    ("right", "of", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),  # published tables of Wilson's interval
        (50, 100, 0.4038, 0.5962),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (1, 1, 0.2065, 1.0),
    ],
)
def test_wilson(right, of, low, high):
    assert wilson_interval(np.arange(of) < right) == pytest.approx((low, high), abs=1e-4)


def test_one_seed_is_the_normal_approximation():
    """A hundred of a thousand images differ, all in favor of one: s.e. = sqrt(0.1 * 0.9 / 1000)."""
    better, base = np.arange(1000)[None] < 600, np.arange(1000)[None] < 500
    there, back, same = paired_difference(better, base), paired_difference(base, better), paired_difference(base, base)
    half = 1.96 * (0.1 * 0.9 / 1000) ** 0.5
    assert (there.mean, there.low, there.high) == pytest.approx((0.1, 0.1 - half, 0.1 + half), abs=1e-3)
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low), abs=1e-3)
    assert there.p < 0.001 and (same.mean, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_crossed_is_the_bootstrap_written_out():
    """Seeds that differ much, images that differ little: drawn one by one here."""
    rng = np.random.default_rng(1)
    values = (rng.random((4, 200)) < np.array([0.2, 0.35, 0.5, 0.65])[:, None]).astype(float)
    means = [values[np.ix_(rng.integers(0, 4, 4), rng.integers(0, 200, 200))].mean() for _ in range(4000)]
    found = two_way_bootstrap(values)
    assert found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx(np.quantile(means, (0.025, 0.975)), abs=0.01)
    images_only = two_way_bootstrap(values.mean(0, keepdims=True))
    assert found.high - found.low > 2 * (images_only.high - images_only.low), "seeds count"


@pytest.mark.slow
def test_crossed_holds_the_truth_about_as_often_as_it_says():
    """Seeds and images have effects of their own; with five seeds a bootstrap is known to be somewhat too narrow."""
    rng, held = np.random.default_rng(2), 0
    for _ in range(200):
        values = 0.3 + 0.02 * rng.normal(size=(5, 1)) + 0.2 * rng.normal(size=(1, 300)) + rng.normal(size=(5, 300))
        found = two_way_bootstrap(values, draws=500)
        held += found.low <= 0.3 <= found.high
    assert 0.87 <= held / 200 <= 1


@pytest.mark.slow
def test_p_is_uniform_without_a_difference():
    rng = np.random.default_rng(3)
    ps = [two_way_bootstrap(rng.normal(size=(1, 200)), draws=1000).p for _ in range(300)]
    assert np.mean(np.array(ps) < 0.05) == pytest.approx(0.05, abs=0.04)
    assert np.mean(np.array(ps) < 0.5) == pytest.approx(0.5, abs=0.1)


@pytest.mark.slow
def test_a_clear_difference_is_found_among_many_pairs():
    """Of ten thousand draws none crosses zero at 4 standard errors, where a normal distribution has 6e-5, nor at 10."""
    x = np.random.default_rng(0).normal(size=(1, 4000))
    x = (x - x.mean()) / x.std()
    four, ten = (two_way_bootstrap(x + shift / 4000**0.5).p for shift in (4, 10))
    assert 2e-5 < four < 2 / 10_001 and ten < 1e-15
    assert holm([ten] + [0.5] * 600)[0] < 0.05 < holm([2 / 10_001] + [0.5] * 600)[0]
    assert two_way_bootstrap(x + 100 / 4000**0.5).p > 0
    for seeds in (1, 3, 7):  # no spread to judge by
        assert two_way_bootstrap(np.ones((seeds, 50))).p == pytest.approx(2 / 10_001)


@pytest.mark.slow
def test_a_few_seeds_say_no_more_than_their_draws():
    """Whatever a normal distribution would say of them: means of three seeds have longer tails."""
    rng = np.random.default_rng(0)
    seeds = np.array([[0.02], [0.021], [0.022]])
    assert two_way_bootstrap(seeds + 0.1 * rng.normal(size=(3, 4000))).p == pytest.approx(2 / 10_001)


def test_the_same_values_give_the_same_interval():
    values = np.random.default_rng(4).random((3, 50))
    assert two_way_bootstrap(values) == two_way_bootstrap(values.copy())


def test_pairing_narrows_the_interval():
    random = np.random.default_rng(0)
    easy = random.random((1, 1000)) < 0.7
    better, base = easy | (random.random((1, 1000)) < 0.1), easy
    near, far = paired_difference(better, base), paired_difference(better, random.permuted(base, axis=1))
    assert near.high - near.low < 0.6 * (far.high - far.low)


def test_student():
    """By hand: mean 2, standard error 1 / sqrt(3)."""
    assert t_interval(np.array([1.0, 2.0, 3.0])) == pytest.approx((2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5))
    assert t_interval(np.array([5.0, 5.0])) == (5, 5)


def test_holm():
    """By hand: 4 x 0.005, 3 x 0.01, then 2 x 0.03, and never less than the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1] and holm([]) == []


def test_an_interval_holds_its_mean_at_every_number_of_images():
    for n in range(1, 3001):
        for k in {0, 1, n // 3, n - 1, n}:
            low, high = wilson_interval(np.arange(n) < k)
            assert 0 <= low <= k / n <= high <= 1, (n, k)


@pytest.mark.parametrize("seeds", [1, 2, 3, 7, 10])
@pytest.mark.parametrize("n", [1, 2, 3, 49])
def test_intervals_of_constant_and_of_few_values_hold_their_mean(seeds, n):
    """A mean of equal values rounds, and so does each of its draws."""
    lone = np.zeros((seeds, n))
    lone[0, 0] = 0.1
    for values in (np.full((seeds, n), 0.1), np.full((seeds, n), -0.7), np.zeros((seeds, n)), lone):
        found = two_way_bootstrap(values, draws=200)
        assert found.low <= found.mean <= found.high and 0 < found.p <= 1
        low, high = t_interval(values[:, 0])
        assert low <= values[:, 0].mean() <= high
    right = np.ones((seeds, n), bool)
    assert paired_difference(right, right).ends == (0, 0)
    assert paired_difference(right, ~right).ends == pytest.approx((1, 1), abs=1e-12)


def test_what_is_not_finite_or_not_there_has_no_interval():
    """And no p value that a finding could rest on: NaN lies on neither side of 0."""
    for values in (np.array([[0.5, np.nan]]), np.array([[np.inf, 0.5]]), np.full((3, 2), np.nan), np.empty((3, 0))):
        found = two_way_bootstrap(values)
        assert np.isnan([found.mean, *found.ends]).all() and found.p == 1
    assert np.isnan(
        [*t_interval(np.array([1.0, np.nan])), *t_interval(np.array([np.nan])), *t_interval(np.empty(0))]
    ).all()
    assert t_interval(np.array([0.5])) == (-np.inf, np.inf) and wilson_interval(np.empty(0, bool)) == (0, 1)
