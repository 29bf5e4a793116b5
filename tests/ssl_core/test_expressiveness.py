"""Label-free measures of what features can express, against constructions with known answers and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch.nn import functional as F

from ssl_core.evaluation.clustering import spherical_kmeans
from ssl_core.evaluation.expressiveness import alpha_req, cluster_learnability, intrinsic_dimension

RNG = np.random.default_rng(0)


def with_spectrum(values: np.ndarray, n: int = 400) -> torch.Tensor:
    """Centered features whose covariance has exactly these eigenvalues."""
    q = np.linalg.qr(np.column_stack([np.ones(n), RNG.normal(size=(n, len(values)))]))[0][:, 1:]
    turn = np.linalg.qr(RNG.normal(size=(len(values), len(values))))[0]
    return torch.from_numpy(q * np.sqrt(values) @ turn + 3.0)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_alpha_of_an_exact_power_law(alpha):
    assert alpha_req(with_spectrum(np.arange(1, 129.0) ** -alpha)) == pytest.approx(alpha, rel=1e-6)


def test_alpha_is_a_weighted_fit_of_ranks_11_to_100():
    values = np.sort(RNG.exponential(size=128) ** 3)[::-1]
    ranks = np.arange(11, 101)
    slope = np.polyfit(np.log(ranks), np.log(values[10:100]), 1, w=ranks**-0.5)[0]
    assert alpha_req(with_spectrum(values)) == pytest.approx(-slope, rel=1e-6)


def test_alpha_needs_directions():
    assert alpha_req(torch.randn(50, 8).double()) is None and alpha_req(torch.ones(50, 40).double()) is None


@pytest.mark.parametrize("dimension", [1, 3, 6])
def test_dimension_of_a_cube_in_many_coordinates(dimension):
    points = RNG.uniform(size=(3000, dimension)) @ np.linalg.qr(RNG.normal(size=(20, dimension)))[0].T
    found = intrinsic_dimension(torch.from_numpy(np.concatenate([points, points[:500]])))
    assert found == pytest.approx(dimension, rel=0.1)


def test_dimension_needs_neighbors():
    assert intrinsic_dimension(torch.ones(9, 4).double()) is None
    assert intrinsic_dimension(torch.eye(5).double()) is None


def test_learnability_is_that_of_a_nearest_neighbor_classifier():
    z = torch.randn(60, 5, generator=torch.Generator().manual_seed(1)).double()
    order = torch.randperm(60, generator=torch.Generator().manual_seed(7))
    x, which = F.normalize(z[order], dim=1).numpy(), spherical_kmeans(z[order].float(), 6, 7).numpy()
    right = [KNeighborsClassifier(1).fit(x[:i], which[:i]).predict(x[i : i + 1])[0] == which[i] for i in range(1, 60)]
    assert cluster_learnability(z, 6, 7) == pytest.approx(np.mean(right))


def test_learnability_of_tight_clusters():
    z = torch.eye(10).double().repeat_interleave(60, 0) * 50 + torch.randn(600, 10).double() * 0.1
    assert cluster_learnability(z, 10, 0) == pytest.approx(1 - 9 / 599)  # each cluster surprises once
    assert cluster_learnability(torch.ones(20, 3).double(), 5, 0) == 1.0
