"""Maps of test images: what is alike lies together, and every image is where the sheet says."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics import silhouette_score
from support.frozen_encoders import Constant, frozen, small_source, unlabeled

import ssl_core.encoders.build as encoders
from ssl_core.data.dataset import Arrays
from ssl_core.evaluation.protocols.tsne import TSNE, grid

CONFIG = TSNE.Config(images=40, perplexity=8)


def three_colors(count: int) -> Arrays:
    """Images in three colors, 16 px a side, each with a noise of its own."""
    random, labels = np.random.default_rng(count), np.arange(count) % 3
    colors = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200]])[labels][:, None, None]
    return Arrays((colors + random.integers(-30, 30, (count, 16, 16, 3))).astype(np.uint8), labels)


@pytest.mark.slow
def test_images_that_are_alike_lie_together():
    given = replace(small_source(), train=three_colors(60), test=three_colors(45), classes=("r", "g", "b"))
    model = frozen(encoders.build("raw-pixels", 16, 0), given)
    result, again = (TSNE().run(model, CONFIG, 0) for _ in range(2))
    places = np.array([point[:2] for point in result.points])
    labels = [point.label for point in result.points]
    assert labels == [int(given.test.labels[i * 45 // 40]) for i in range(40)]
    assert silhouette_score(places, labels) > 0.5 and result.numbers["trustworthiness"] > 0.8
    assert places.min() >= 0 and places.max() <= 1 and np.ptp(places, axis=0).max() == pytest.approx(1, abs=1e-3)
    assert again.points == result.points and again.numbers == result.numbers
    assert len({point.cell for point in result.points}) == 40 and result.sheet.shape == (7 * 16, 7 * 16, 3)
    for i, point in enumerate(result.points):
        y, x = (16 * n for n in divmod(point.cell, 7))
        assert np.array_equal(result.sheet[y : y + 16, x : x + 16], given.test.images[i * 45 // 40])


def test_the_grid_is_the_map_where_the_map_is_a_grid():
    """In another order; the first row of cells is the upper one."""
    line = np.linspace(0, 1, 5)
    places = np.stack([np.tile(line, 5), 1 - line.repeat(5)], 1)
    order = np.random.default_rng(0).permutation(25)
    cells, across = grid(places[order])
    assert across == 5 and cells.tolist() == order.tolist()
    cells, across = grid(places[:17])
    centers = (np.stack([np.arange(25) % across, across - 1 - np.arange(25) // across], 1) + 0.5) / across
    assert across == 5 and len(set(cells)) == 17
    assert (
        np.square(places[:17] - centers[cells]).sum() < cdist(places[:17], centers[:17], "sqeuclidean").trace() + 1e-9
    )


@pytest.mark.slow
def test_without_labels_and_with_little_to_show():
    bare = unlabeled(small_source(40))
    few = replace(small_source(), test=three_colors(3))
    assert {
        point.label for point in TSNE().run(frozen(encoders.build("raw-pixels", 16, 0), bare), CONFIG, 0).points
    } == {-1}
    for encoder, given, why in ((encoders.build("raw-pixels", 16, 0), few, "4 test"), (Constant(), None, "all alike")):
        result = TSNE().run(frozen(encoder, given), CONFIG, 0)
        assert not result.numbers and not result.points and why in result.notes[0] and result.sheet is None
