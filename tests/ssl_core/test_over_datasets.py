"""Means over datasets: against what can be computed by hand, and their intervals against repeated experiments."""

import numpy as np
import pytest

from ssl_core.evaluation.over_datasets import mean_gains, mean_ranks


def answers(rng, shares, seeds: int = 1, images: int = 200) -> np.ndarray:
    """[encoders, seeds, images]: right with each encoder's chance, on images that are as hard for all."""
    hard = rng.random((1, 1, images))
    return (np.asarray(shares)[:, None, None] + rng.normal(0, 0.02, (len(shares), seeds, 1))) > hard


def test_by_hand():
    """Ties share the mean of their ranks; gains are in shares of the images."""
    first = np.array([[[1, 1, 1, 0]], [[1, 0, 0, 0]], [[1, 0, 0, 0]]], bool)
    second = np.array([[[0, 0, 0, 0]], [[1, 1, 0, 0]], [[1, 1, 1, 1]]], bool)
    assert [one.mean for one in mean_ranks([first, second])] == [2, (2.5 + 2) / 2, (2.5 + 1) / 2]
    base = np.zeros_like(first)
    assert [one.mean for one in mean_gains([first, second], [base, base])] == [3 / 8, 3 / 8, 5 / 8]
    assert all(one.low <= one.mean <= one.high for one in mean_ranks([first, second]))


def test_a_clear_order_on_many_datasets_is_certain():
    rng = np.random.default_rng(0)
    correct = [answers(rng, (0.3, 0.8, 0.5), seeds=3) for _ in range(8)]
    for one, rank in zip(mean_ranks(correct), (3, 1, 2), strict=True):
        assert (one.mean, one.low, one.high) == (rank, rank, rank)


def test_the_same_answers_give_the_same_intervals():
    rng = np.random.default_rng(1)
    correct = [answers(rng, (0.4, 0.45), seeds=2) for _ in range(3)]
    assert mean_ranks(correct) == mean_ranks(correct)


def test_the_interval_speaks_of_datasets_too():
    """On each dataset alone the gain is certain; between datasets it is not."""
    rng = np.random.default_rng(2)
    certain = answers(rng, (0.9,), images=5000), answers(rng, (0.5,), images=5000)
    same = mean_gains([certain[0]] * 4, [certain[1]] * 4)[0]
    mixed = mean_gains([certain[0], certain[1]] * 2, [certain[1], certain[0]] * 2)[0]
    assert same.high - same.low < 0.05 and mixed.low < -0.15 and mixed.high > 0.15
    assert mixed.mean == pytest.approx(0)


@pytest.mark.slow
def test_the_interval_holds_the_mean_gain_about_as_often_as_it_says():
    """Of eight datasets, drawn from many; a bootstrap of so few is somewhat too narrow."""
    rng, held = np.random.default_rng(3), 0
    for _ in range(150):
        gains = rng.normal(0.1, 0.1, 8)
        pairs = [answers(rng, (0.4 + gain, 0.4), images=400) for gain in gains]
        one = mean_gains([pair[:1] for pair in pairs], [pair[1:] for pair in pairs], draws=400)[0]
        held += one.low <= 0.1 <= one.high
    assert 0.84 <= held / 150 <= 0.99
