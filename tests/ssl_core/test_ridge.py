"""Ridge regression against scikit-learn's, with more images than coordinates and with fewer."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from ssl_core.evaluation.ridge import SHARES, RidgePath, r_squared


def problem(n: int, d: int, noise: float = 0.5) -> tuple[torch.Tensor, ...]:
    """Features and targets to fit, to choose by and to test on, with means that are not 0."""
    random = np.random.default_rng(n)
    weights, spread = random.standard_normal((d, 3)), np.geomspace(3, 0.3, d)
    made = []
    for count in (n, 40, 50):
        x = 2 + spread * random.standard_normal((count, d))
        made += [x, x @ weights / d + 5 + noise * random.standard_normal((count, 3))]
    return tuple(torch.from_numpy(each.astype(np.float32)) for each in made)


@pytest.mark.parametrize(("n", "d"), [(200, 12), (60, 90), (30, 30)])
def test_the_fit_is_scikit_learns_of_the_best_penalty_on_held_out_images(n, d):
    x, y, held_out, y_held_out, asked, y_asked = problem(n, d)
    path = RidgePath(x)
    fit = path.fit(y, path.project(held_out), y_held_out)
    values = np.linalg.svd(x.numpy() - x.numpy().mean(0), compute_uv=False) ** 2
    mean = values[values > 1e-6 * values[0]].mean()
    errors = {}
    for share in SHARES:
        model = Ridge(share * mean).fit(x.double(), y.double())
        errors[share * mean] = float(np.square(model.predict(held_out) - y_held_out.numpy()).mean())
    best = min(errors, key=lambda penalty: errors[penalty])
    assert fit.penalty == pytest.approx(best, rel=1e-4) and SHARES[0] * mean < best
    model = Ridge(best).fit(x.double(), y.double())
    found = fit.predict(path.project(asked))
    assert found.numpy() == pytest.approx(model.predict(asked.double()), abs=1e-3)
    assert r_squared(found, y_asked) == pytest.approx(r2_score(y_asked, model.predict(asked.double())), abs=1e-3)


def test_features_that_are_all_alike_predict_the_mean():
    x, y = torch.ones(8, 3), torch.arange(8.0)[:, None]
    path = RidgePath(x)
    assert path.fit(y, path.project(x), y).predict(path.project(x[:2])).tolist() == [[3.5], [3.5]]


def test_r_squared_is_negative_for_worse_than_the_mean_and_nothing_without_variance():
    y = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    assert r_squared(y, y) == 1 and r_squared(torch.tensor([[1.0, 2.0]]).expand(2, 2), y) == 0
    assert r_squared(y.flip(0), y) == pytest.approx(r2_score(y, y.flip(0))) == -3
    assert r_squared(y[:1], y[:1]) is None and r_squared(y, torch.tensor([[0.0, 1.0], [2.0, 1.0]])) is None
