"""Nearest neighbors, and what protocols read off them, against scikit-learn and closed forms."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import silhouette_score
from sklearn.neighbors import NearestNeighbors
from support.frozen_encoders import clusters, frozen, small_source, unlabeled

import ssl_core.encoders.build as encoders
from ssl_core.data.dataset import Arrays
from ssl_core.evaluation.features import extract
from ssl_core.evaluation.neighbors import nearest_neighbors
from ssl_core.evaluation.protocols import retrieval
from ssl_core.evaluation.protocols import semantic_similarity as semantics
from ssl_core.evaluation.protocols.retrieval import Retrieval
from ssl_core.evaluation.protocols.semantic_similarity import SemanticSimilarity


def test_neighbors_of_a_zero_row_and_a_small_bank():
    bank = np.array([[3.0, 0], [0, 0.5], [0, 0]], np.float32)
    ((which, cosines, rows),) = nearest_neighbors(np.array([[2.0, 2], [0, 0]], np.float32), bank, 5)
    assert which == slice(0, 2) and rows.shape == (2, 3)
    assert cosines[0].tolist() == pytest.approx([0.5**0.5, 0.5**0.5, 0]) and cosines[1].tolist() == [0, 0, 0]


def test_purity_is_that_of_the_neighbors_scikit_learn_finds():
    what = clusters(apart=2)
    numbers = SemanticSimilarity().run(what, SemanticSimilarity.Config(), 0).numbers
    near = NearestNeighbors(n_neighbors=20, metric="cosine").fit(what.stages[0]["train"])
    rows = near.kneighbors(what.stages[0]["test"], return_distance=False)
    alike = what.labels["train"][rows] == what.labels["test"][:, None]
    for k in (1, 5, 20):
        assert numbers[f"purity@{k}"] == pytest.approx(alike[:, :k].mean(), abs=1e-6)
    expected = silhouette_score(what.stages[0]["test"], what.labels["test"], metric="cosine")
    assert numbers["silhouette"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("apart", "low", "high"), [(0, 0.17, 0.33), (20, 0.999, 1)])
def test_purity_of_noise_is_chance_and_of_what_lies_apart_one(apart, low, high):
    numbers = SemanticSimilarity().run(clusters(apart), SemanticSimilarity.Config(), 0).numbers
    assert all(low <= numbers[name] <= high for name in ("purity@1", "purity@5", "purity@20", "purity@20/stage1"))


def test_separation_by_hand():
    """Two classes of two points on a line: variance 25 between the classes, 1 within."""
    x, y = torch.tensor([[4.0], [6.0], [-4.0], [-6.0]]), torch.tensor([3, 3, 7, 7])
    assert semantics.between(x, y) == pytest.approx(25 / 26)
    assert semantics.silhouette(x, y) == pytest.approx(1)
    assert semantics.silhouette(x, torch.tensor([3, 7, 3, 7])) < 0
    alone = torch.tensor([0, 1, 1, 1])
    expected = silhouette_score(x.numpy(), alone.numpy(), metric="cosine")
    assert semantics.silhouette(x, alone) == pytest.approx(expected, abs=1e-6)
    assert semantics.silhouette(x, torch.zeros(4, dtype=torch.int64)) == 0


def test_retrieval_finds_the_image_itself_and_colors_its_borders():
    """The test images are training images under other labels in part: the first neighbor is the image itself."""
    given = small_source(train=100, test=100)
    given = replace(given, test=Arrays(given.train.images, given.train.labels))
    whole = frozen(encoders.build("raw-pixels", 16, 0), given)
    result = Retrieval().run(whole, Retrieval.Config(neighbors=1, shown=4), 0)
    fitted = np.isin(np.arange(100), whole.parts["train"][1])
    assert 0.83 <= fitted.mean() <= result.numbers["precision@1"]
    cell = retrieval.SIDE + 2 * retrieval.EDGE
    assert result.sheet.dtype == np.uint8 and result.sheet.shape == (4 * cell, 2 * cell + retrieval.GAP, 3)
    for i, row in enumerate((0, 25, 50, 75)):
        query, near = result.sheet[i * cell : (i + 1) * cell, :cell], result.sheet[i * cell : (i + 1) * cell, -cell:]
        large = given.test.images[row].repeat(4, 0).repeat(4, 1)
        assert np.array_equal(query[3:-3, 3:-3], large)
        if fitted[row]:
            assert np.array_equal(near[3:-3, 3:-3], large) and tuple(near[0, 0]) == retrieval.RIGHT


def test_precision_is_that_of_scikit_learns_neighbors():
    whole = frozen(encoders.build("convnet", 16, 0))
    numbers = Retrieval().run(whole, Retrieval.Config(), 0).numbers
    stage, labels = (found := extract(whole)).stages[-1], found.labels
    near = NearestNeighbors(n_neighbors=8, metric="cosine").fit(stage["train"])
    distances, rows = near.kneighbors(stage["test"])
    assert numbers["precision@8"] == pytest.approx((labels["train"][rows] == labels["test"][:, None]).mean(), abs=2e-3)
    assert numbers["similarity@8"] == pytest.approx(1 - distances.mean(), abs=1e-3)


def test_retrieval_without_labels_has_no_borders():
    bare = unlabeled(small_source())
    result = Retrieval().run(frozen(encoders.build("raw-pixels", 16, 0), bare), Retrieval.Config(), 0)
    assert set(result.numbers) == {"similarity@8"}
    assert (result.sheet[:, : retrieval.EDGE] == 255).all() and (result.sheet[:: retrieval.SIDE + 6] == 255).all()
