"""Intervals of a mean average precision: what each draw of images gives, and how often they hold the truth."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from ssl_core.evaluation import bootstrap
from ssl_core.evaluation.bootstrap import bootstrap_map
from ssl_core.evaluation.metrics import average_precisions
from ssl_core.evaluation.statistics import bootstrap_of_draws


def images(rng, n: int, classes: int = 5, share: float = 0.1, apart: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Scores that are higher by `apart` standard deviations where an image has the class, and labels."""
    labels = rng.random((n, classes)) < share
    return labels * apart + rng.normal(size=(n, classes)), labels


@pytest.mark.parametrize("levels", [4, 1000])
def test_each_draw_is_scikit_learns_of_the_drawn_images(levels):
    """Also where scores are equal, a class has no image, and one has an image that is not drawn each time."""
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, levels, (50, 4)).astype(np.float32), rng.random((50, 4)) < 0.1
    labels[:, 2], labels[:, 3] = False, np.arange(50) == 7
    drawn = np.random.default_rng(0).multinomial(50, np.full(50, 1 / 50), size=30)
    for counts, found in zip(drawn, bootstrap_map(scores, labels, 30), strict=True):
        present = [i for i in range(4) if (counts @ labels)[i]]
        each = [average_precision_score(labels[:, i], scores[:, i], sample_weight=counts) for i in present]
        assert found == pytest.approx(np.mean(each), abs=1e-6)
    assert (drawn[:, 7] == 0).any()


def test_draws_do_not_depend_on_how_many_are_made_at_a_time(monkeypatch):
    scores, labels = images(np.random.default_rng(0), 40)
    whole = bootstrap_map(scores, labels, 100)
    monkeypatch.setattr(bootstrap, "CELLS", 300)
    assert np.array_equal(bootstrap_map(scores, labels, 100), whole)
    assert (bootstrap_map(scores, np.zeros_like(labels), 20) == 0).all()


@pytest.mark.slow
def test_intervals_hold_what_as_many_images_give_on_average():
    """So many images overestimate a mean average precision, and drawn ones do once more, which is taken off."""
    rng = np.random.default_rng(0)
    mean = np.mean([average_precisions(*images(rng, 200)).mean() for _ in range(500)])
    held = []
    for _ in range(100):
        one = images(rng, 200)
        found = bootstrap_of_draws(np.array([average_precisions(*one).mean()]), bootstrap_map(*one, 300)[None])
        held.append(found.low <= mean <= found.high)
    assert 0.88 <= np.mean(held) <= 1


def test_a_difference_of_paired_draws_is_surer_than_each():
    """The same images are easy for both; and of several seeds their spread counts, too."""
    rng = np.random.default_rng(0)
    scores, labels = images(rng, 300)
    better = scores + 0.3 * labels + 0.1 * rng.normal(size=scores.shape)
    maps = [np.array([average_precisions(one, labels).mean()]) for one in (better, scores)]
    drawn = [bootstrap_map(one, labels)[None].astype(np.float64) for one in (better, scores)]
    more = bootstrap_of_draws(maps[0] - maps[1], drawn[0] - drawn[1])
    alone = bootstrap_of_draws(maps[0], drawn[0])
    assert more.mean == maps[0] - maps[1] and 0 < more.low < more.mean < more.high and more.p < 0.01
    assert more.high - more.low < (alone.high - alone.low) / 2 and alone.low < alone.mean < alone.high
    same = bootstrap_of_draws(maps[0] - maps[0], drawn[0] - drawn[0])
    assert same.ends == (0, 0) and same.p == 1
    seeds = bootstrap_of_draws(np.array([0.5, 0.9]), np.repeat(drawn[0], 2, 0))
    assert seeds.mean == pytest.approx(0.7) and seeds.low < 0.55 and seeds.high > 0.85
    assert np.isnan(bootstrap_of_draws(np.array([np.nan]), drawn[0]).mean)
