"""Clusters of features and their agreement with classes, against scikit-learn."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn import metrics
from sklearn.cluster import KMeans
from sklearn.preprocessing import normalize
from support.frozen_encoders import clusters, frozen, small_source

import ssl_core.encoders.build as encoders
from ssl_core.evaluation.clustering import agreement, nearest_siblings, spherical_kmeans
from ssl_core.evaluation.features import extract
from ssl_core.evaluation.protocols.semantic_similarity import SemanticSimilarity


def similarity(x: np.ndarray, of: np.ndarray) -> float:
    """The sum of cosines of unit rows with the sums of their clusters, which k-means of directions makes large."""
    return sum(float(np.linalg.norm(x[of == kind].sum(0))) for kind in np.unique(of))


@pytest.mark.parametrize("apart", [0, 2, 6])
def test_clusters_are_as_good_as_scikit_learns(apart):
    what = clusters(apart, classes=6)
    x = normalize(what.stages[0]["test"].astype(float))
    ours = spherical_kmeans(torch.from_numpy(7 * x).float(), 6, 0).numpy()
    theirs = KMeans(6, n_init=5, random_state=0).fit_predict(x)
    assert similarity(x, ours) >= 0.995 * similarity(x, theirs)
    if apart == 6:
        assert metrics.adjusted_rand_score(ours, theirs) == 1


@pytest.mark.parametrize("kinds", [2, 5, 9])
def test_agreement_is_scikit_learns(kinds):
    """Also of more or fewer clusters than classes, and of names that are no numbers from 0 on."""
    random = np.random.default_rng(kinds)
    classes = random.integers(0, 5, 300) * 3 + 2
    guesses = np.where(random.random(300) < 0.6, classes % kinds, random.integers(0, kinds, 300)) + 40
    found = agreement(guesses, classes)
    assert found["nmi"] == pytest.approx(metrics.normalized_mutual_info_score(classes, guesses))
    assert found["ari"] == pytest.approx(metrics.adjusted_rand_score(classes, guesses))
    table = metrics.cluster.contingency_matrix(guesses, classes)
    best = max(0, *(table[list(range(len(rows))), rows].sum() for rows in orders(*table.shape))) if kinds < 6 else None
    assert best is None or found["accuracy"] == pytest.approx(best / 300)


def orders(rows: int, columns: int) -> list[list[int]]:
    """Every way to give each row a column of its own."""
    if not rows:
        return [[]]
    return [[*rest, column] for rest in orders(rows - 1, columns) for column in range(columns) if column not in rest]


def test_agreement_of_the_classes_themselves_and_of_one_cluster():
    classes = np.array([0, 0, 1, 1, 2])
    assert agreement(classes[::-1].copy(), classes[::-1]) == pytest.approx({"accuracy": 1, "nmi": 1, "ari": 1})
    assert agreement(np.zeros(5, int), classes) == pytest.approx({"accuracy": 0.4, "nmi": 0, "ari": 0})
    assert agreement(np.arange(5), np.arange(5)) == pytest.approx({"accuracy": 1, "nmi": 1, "ari": 1})


def test_rows_that_are_alike_are_clustered_too():
    assert len(spherical_kmeans(torch.ones(6, 3), 4, 0)) == len(spherical_kmeans(torch.zeros(6, 3), 6, 0)) == 6
    assert len(spherical_kmeans(torch.eye(4), 4, 0).unique()) == 4, "no cluster is left empty"


def test_the_protocol_compares_clusters_with_classes():
    near, apart = (SemanticSimilarity().run(clusters(a), SemanticSimilarity.Config(), 0).numbers for a in (0, 20))
    assert apart["clusters/accuracy"] == apart["clusters/nmi"] == apart["clusters/ari"] == pytest.approx(1)
    assert near["clusters/ari"] == pytest.approx(0, abs=0.03) and near["clusters/accuracy"] < 0.4
    assert not any(name.startswith("hierarchy") for name in near)


def test_the_nearest_class_of_a_hierarchy():
    means = torch.tensor([[1.0, 0], [0.9, 0.1], [0, 1], [0.9, 0.4], [-1, 0]])
    names = ["animals/dog", "animals/cat", "fruit/apple", "fruit/pear", "stone"]
    # of those with a sibling only the pear lies nearest to one of another parent
    assert nearest_siblings(means, names) == (pytest.approx(3 / 4), pytest.approx(1 / 4))
    assert nearest_siblings(means, ["a/b/c", "a/b/d", "a/c", "a/d", "b"]) == (
        pytest.approx(3 / 4),
        pytest.approx(1 / 4),
    )
    assert nearest_siblings(means, list("abcde")) is None
    assert nearest_siblings(means, [f"all/{name}" for name in "abcde"]) is None


def test_a_hierarchy_is_measured_where_classes_are_named_so():
    what = replace(clusters(20), class_names=("a/b", "a/c", "d/e", "d/f"))
    numbers = SemanticSimilarity().run(what, SemanticSimilarity.Config(), 0).numbers
    assert numbers["hierarchy/chance"] == pytest.approx(1 / 3) and 0 <= numbers["hierarchy"] <= 1
    given = replace(small_source(60, 30), classes=tuple(f"x/{i}" for i in range(len(small_source().classes))))
    assert extract(frozen(encoders.build("raw-pixels", 16, 0), given)).class_names == given.classes
