"""Logistic regression against scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from support.frozen_encoders import clusters
from torch.nn import functional as F

from ssl_core.evaluation.logistic import fit_logistic


@pytest.mark.parametrize("c", [0.1, 1.0, 10.0])
def test_logistic_regression_is_scikit_learns(c):
    what = clusters(apart=2)
    x, y = what.stages[0]["train"], what.labels["train"]
    layer = fit_logistic(torch.from_numpy(x), torch.from_numpy(y), 4, c)
    expected = LogisticRegression(C=c, max_iter=1000, tol=1e-6).fit(x, y)
    assert np.allclose(layer.weight.numpy(), expected.coef_, atol=5e-3)
    probabilities = F.softmax(layer(torch.from_numpy(what.stages[0]["test"])), 1).numpy()
    assert np.allclose(probabilities, expected.predict_proba(what.stages[0]["test"]), atol=5e-3)
