"""Measures of collapse against closed forms, scipy and encoders whose answer is known."""

import numpy as np
import pytest
import torch
from scipy.linalg import eigh
from support.frozen_encoders import Constant, Noise, frozen, small_source

from ssl_core.evaluation.protocols import collapse
from ssl_core.evaluation.protocols.collapse import Collapse


@pytest.mark.parametrize("k", [1, 3, 8])
def test_rankme_counts_equal_directions(k):
    """k orthogonal directions of equal strength have an entropy of log k."""
    z = torch.zeros(80, 8, dtype=torch.float64)
    z[torch.arange(80), torch.arange(80) % k] = 5
    assert collapse.rankme(z) == pytest.approx(k, rel=1e-4)


def test_rankme_by_hand():
    z = torch.diag(torch.tensor([3.0, 1.0, 0.0], dtype=torch.float64))
    assert collapse.rankme(z) == pytest.approx(np.exp(-0.75 * np.log(0.75) - 0.25 * np.log(0.25)), rel=1e-4)


def test_spread_of_normalized_features():
    """1 on the corners of a cross polytope, whose coordinates have a variance of 1 / d; 0 for a single point."""
    corners = torch.cat([torch.eye(5), -torch.eye(5)]).double()
    assert collapse.spread(7 * corners) == pytest.approx(1)
    assert collapse.spread(torch.ones(9, 5).double()) == pytest.approx(0, abs=1e-9)


def test_lidar_is_that_of_the_generalized_eigenvalues():
    """scipy solves Sb v = lambda Sw v, which has the eigenvalues of the whitened matrix."""
    random = np.random.default_rng(0)
    z = random.standard_normal((60, 1, 6)) * [5, 3, 1, 1, 0.1, 0] + random.standard_normal((60, 4, 6))
    sb = np.cov(z.mean(1).T)
    sw = sum(np.cov(image.T) for image in z) / 60 + 1e-4 * np.eye(6)
    values = eigh(sb, sw, eigvals_only=True)
    shares = values / values.sum()
    assert collapse.lidar(torch.from_numpy(z)) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-4)


def test_a_collapsed_encoder():
    numbers = Collapse().run(frozen(Constant()), Collapse.Config(), 0).numbers
    assert numbers["rankme"] == pytest.approx(1, abs=1e-3) and numbers["lidar"] == pytest.approx(1, abs=1e-3)
    assert numbers["std"] == pytest.approx(0, abs=1e-5) and numbers["width"] == 8


def test_an_encoder_of_noise_uses_every_direction():
    numbers = Collapse().run(frozen(Noise(8), small_source(test=1000)), Collapse.Config(), 0).numbers
    assert numbers["rankme"] == pytest.approx(8, abs=0.1) and numbers["std"] == pytest.approx(1, abs=0.03)
    assert 7 < numbers["lidar"] < 8
