"""Measures of collapse against closed forms, scipy and encoders whose answer is known."""

import numpy as np
import pytest
import torch
from scipy.linalg import eigh
from sklearn.cluster import KMeans
from support.frozen_encoders import Constant, Noise, frozen, small_source

import ssl_core.encoders.build as encoders
from ssl_core.evaluation.cell_clusters import kmeans
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


def test_dse_of_clusters_without_extent():
    """Eight images with three directions each, all orthogonal: clusters are points, a root of 2 from each other."""
    cells = 3 * torch.eye(24, dtype=torch.float64).view(8, 3, 24).repeat(1, 4, 1)
    found = collapse.dse(cells, 0)
    scale = np.sqrt(23 / 24)  # from each to the mean of all
    assert found["dse/inter"] == pytest.approx(np.sqrt(2) / scale) and found["dse/intra"] == pytest.approx(0, abs=1e-9)
    assert found["dse/dim"] == pytest.approx(1, abs=1e-4)
    assert found["dse"] == pytest.approx(found["dse/inter"] - found["dse/intra"] + found["dse/dim"])


def test_dse_of_equal_cells():
    found = collapse.dse(torch.ones(16, 9, 5).double(), 0)
    assert found["dse/inter"] == found["dse/intra"] == 0 and found["dse/dim"] == pytest.approx(1 / 5, abs=1e-4)
    assert collapse.dse(torch.ones(16, 1, 5).double(), 0) == {}


@pytest.mark.parametrize("shape", [(20, 16, 8), (9, 30, 40)])
def test_dse_by_its_formula(shape):
    """Clusters are scikit-learn's, from the same first centroids, and all else is computed in numpy."""
    cells = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found, generator = collapse.dse(cells, 5), torch.Generator().manual_seed(5)
    x = cells.numpy() / np.linalg.norm(cells.numpy(), axis=2, keepdims=True)
    points, d = x.reshape(-1, shape[2]), shape[2]
    scale = np.linalg.norm(points - points.mean(0), axis=1).mean()

    def clusters(rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        centroids, nearest = (of.numpy() for of in kmeans(torch.from_numpy(rows), count, generator))
        once_more = KMeans(count, init=centroids, n_init=1, max_iter=1).fit(rows)
        own = sum(((rows[nearest == i] - centroids[i]) ** 2).sum() for i in range(count))
        assert once_more.inertia_ > 0.97 * own  # Lloyd's steps are done, or nearly
        return centroids, nearest

    def sizes(rows: np.ndarray, nearest: np.ndarray) -> list[float]:
        parts = [rows[nearest == i] for i in np.unique(nearest) if (nearest == i).sum() > 1]
        return [np.linalg.norm(of - of.mean(0), "nuc") / np.sqrt(max(len(of) - 1, d)) for of in parts]

    local = [np.mean(sizes(image, clusters(image, 3)[1])) for image in x]
    groups = [x[i : i + 8].reshape(-1, d) for i in range(0, len(x), 8)]
    inter, together = [], []
    for rows in groups:
        centroids, nearest = clusters(rows, 24)
        distances = np.linalg.norm(rows[:, None] - centroids[None], axis=2)
        distances[np.arange(len(rows)), nearest] = np.inf
        inter.append(distances.min(1).mean())
        together += sizes(rows, nearest)
    assert found["dse/inter"] == pytest.approx(np.mean(inter) / scale)
    assert found["dse/intra"] == pytest.approx((np.mean(local) + np.mean(together)) / 2 / scale)
    assert 0.5 < found["dse/dim"] < 1
    assert collapse.dse(cells, 5) == found != collapse.dse(cells, 6)


def test_dse_is_of_the_deepest_map_of_several_cells():
    model = frozen(encoders.build("convnet", 16, 0))
    numbers = Collapse().run(model, Collapse.Config(images=40, clean=4, views=2, dense=16, cells=2), 0).numbers
    images = torch.cat([images for images, _ in model.images("test", 16)])
    wanted = collapse.dse(model.feature_maps(images)[-1].double().flatten(2).transpose(1, 2), 0)
    assert {name: numbers[name] for name in wanted} == pytest.approx(wanted, rel=1e-4) and len(wanted) == 4
