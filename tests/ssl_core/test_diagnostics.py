"""Diagnostics of an encoder against closed forms, other implementations and encoders whose answer is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.linalg import eigh
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import pairwise_distances, silhouette_score
from sklearn.neighbors import NearestNeighbors
from support.synthetic_images import CLASSES, FORMAT, arrays, gradients
from torch import nn
from torch.nn import functional as F

import ssl_core.encoders.build as encoders
from kernels.random import RandomBits
from ssl_core.data.dataset import Arrays, Source
from ssl_core.evaluation.features import FrozenFeatures, extract
from ssl_core.evaluation.frozen_encoder import FrozenEncoder, Splits
from ssl_core.evaluation.logistic import fit_logistic
from ssl_core.evaluation.neighbors import nearest_neighbors
from ssl_core.evaluation.protocols import collapse, invariance, retrieval
from ssl_core.evaluation.protocols import semantic_similarity as semantics
from ssl_core.evaluation.transforms import ORDERS, TRANSFORMS, augmented, blurred, cropped, rotated, shuffled

CPU = torch.device("cpu")


def source(train: int = 300, test: int = 120, size: int = 16) -> Source:
    parts = arrays(train, size), arrays(test, size, seed=1)
    return Source("made up", "digest", size, *parts, tuple(map(str, range(CLASSES))), FORMAT.mean, FORMAT.std)


def model(encoder: nn.Module, given: Source | None = None) -> FrozenEncoder:
    return FrozenEncoder(encoder, given or source(), "dataset", Splits(), 0, CPU, 0)


def unlabeled(given: Source) -> Source:
    """As a flat folder is: no classes and no test part."""
    none = Arrays(given.test.images[:0], given.test.labels[:0])
    return replace(given, classes=(), train=Arrays(given.train.images, np.full(len(given.train), -1)), test=none)


class MeanColor(nn.Module):
    """Invariant to all that moves pixels and changes none."""

    def forward(self, x):
        return [x.double().mean((2, 3), keepdim=True).float()]


class Constant(nn.Module):
    """Collapsed: every image is the same point."""

    def forward(self, x):
        return [torch.ones(len(x), 8, 1, 1) * torch.arange(8).view(1, 8, 1, 1)]


class Noise(nn.Module):
    """Tells nothing, not even the same of the same image."""

    def __init__(self, width: int):
        super().__init__()
        self.width, self.generator = width, torch.Generator().manual_seed(0)

    def forward(self, x):
        return [torch.randn(len(x), self.width, 1, 1, generator=self.generator)]


# Invariance


def test_a_perfectly_invariant_encoder():
    numbers = invariance.run(model(MeanColor()), invariance.Config(images=100), 0).numbers
    for name in ("rotation", "rotation/90", "rotation/180", "rotation/270", "flip", "jigsaw", "jigsaw/stage1"):
        assert numbers[name] == pytest.approx(0, abs=1e-5), name
    assert numbers["color"] > 0.05 and numbers["crop"] > 0.05
    assert numbers["probe/rotation"] == pytest.approx(1 / 4, abs=0.03)
    assert numbers["probe/jigsaw"] < 0.1


def test_an_encoder_that_sees_every_turn():
    """Each quarter of these images has a brightness of its own, which raw pixels tell."""
    line, random = np.arange(16), np.random.default_rng(0)
    ramp = (8 * line[:, None] + 4 * line)[..., None] + random.integers(0, 60, (420, 1, 1, 1)) + np.zeros(3, int)
    pixels, labels = ramp.astype(np.uint8), np.zeros(420, np.int64)
    given = replace(source(), train=Arrays(pixels[:300], labels[:300]), test=Arrays(pixels[300:], labels[300:]))
    numbers = invariance.run(model(encoders.build("raw-pixels", 16, 0), given), invariance.Config(), 0).numbers
    assert numbers["rotation"] > 1 and numbers["flip"] > 0.1
    assert numbers["probe/rotation"] > 0.99 and numbers["probe/jigsaw"] > 0.9


def test_without_invariance_a_version_is_as_far_as_another_image():
    numbers = invariance.run(model(Noise(64)), invariance.Config(), 0).numbers
    ratios = [value for name, value in numbers.items() if name.split("/")[0] in TRANSFORMS]
    assert len(ratios) > 12 and ratios == pytest.approx([1] * len(ratios), abs=0.05)


def test_a_collapsed_encoder_is_not_called_invariant():
    numbers = invariance.run(model(Constant()), invariance.Config(), 0).numbers
    assert numbers["rotation"] == 1
    assert numbers["alignment"] == pytest.approx(0, abs=1e-6) == numbers["uniformity"]


def test_the_ratio_is_that_of_all_pairs():
    """Against the distances of scikit-learn, on an encoder and a transform worked out here."""
    given, encoder = source(), encoders.build("convnet", 16, 0)
    numbers = invariance.run(model(encoder, given), invariance.Config(), 0).numbers
    pixels = torch.from_numpy(given.test.images)

    def features(images):
        x = (images.permute(0, 3, 1, 2) - torch.tensor(FORMAT.mean).view(3, 1, 1)) / torch.tensor(FORMAT.std).view(
            3, 1, 1
        )
        with torch.no_grad():
            z = encoder(x)[1].mean((2, 3)).numpy()
        return z / np.linalg.norm(z, axis=1, keepdims=True)

    plain, flipped = features(pixels), features(pixels.flip(2))
    among = pairwise_distances(plain)[np.triu_indices(len(plain), 1)].mean()
    assert numbers["flip/stage2"] == pytest.approx(np.linalg.norm(plain - flipped, axis=1).mean() / among, rel=1e-3)


def test_alignment_and_uniformity_by_hand():
    """Four points on the axes of a circle: squared distances 2 (four pairs) and 4 (two pairs)."""
    square = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    assert invariance.uniformity(square) == pytest.approx(np.log((4 * np.exp(-4) + 2 * np.exp(-8)) / 6))
    assert invariance.alignment(square, square.roll(1, 0)) == pytest.approx(2)
    assert invariance.alignment(square, -square) == pytest.approx(4)
    assert invariance.mean_distance(square) == pytest.approx((4 * 2**0.5 + 2 * 2) / 6)


def test_invariance_needs_no_labels_and_a_seed_names_it():
    bare = unlabeled(source())
    one, again, other = (
        invariance.run(model(encoders.build("convnet", 16, 0), bare), invariance.Config(images=40), seed).numbers
        for seed in (0, 0, 1)
    )
    assert one == again and one["crop"] != other["crop"] and one["rotation"] == other["rotation"]


# Views


def draw(count: int, seed: int = 0) -> RandomBits:
    return RandomBits(torch.arange(count), torch.zeros(count, dtype=torch.int64), seed)


@pytest.mark.parametrize("size", [16, 17, 33])
def test_views_keep_shape_and_type(size):
    images = gradients(3, size)
    views = [view for strengths in TRANSFORMS.values() for view in strengths.values()]
    for view in (*views, augmented):
        seen = view(images, draw(3))
        assert seen.shape == images.shape and seen.dtype == torch.uint8 and not torch.equal(seen, images)


def test_turns_and_tiles_move_pixels_exactly():
    images = gradients(4, 6)
    turns = rotated(images, torch.arange(4))
    assert all(torch.equal(turns[k], torch.rot90(images[k], k)) for k in range(4))
    order = ORDERS.tolist().index([2, 0, 3, 1])
    whole = shuffled(images, torch.full((4,), order))
    tiles = [images[:, :3, :3], images[:, :3, 3:], images[:, 3:, :3], images[:, 3:, 3:]]
    assert torch.equal(whole[:, :3], torch.cat([tiles[2], tiles[0]], 2))
    assert torch.equal(whole[:, 3:], torch.cat([tiles[3], tiles[1]], 2))
    assert torch.equal(shuffled(images, torch.zeros(4, dtype=torch.int64)), images)


def test_blur_is_torchvisions():
    from torchvision.transforms.v2.functional import gaussian_blur

    images = gradients(2, 32)
    expected = gaussian_blur(images.permute(0, 3, 1, 2), [9, 9], [1.28, 1.28]).permute(0, 2, 3, 1)
    assert (blurred(images, 0.04).int() - expected.int()).abs().max() <= 1


def test_crops_are_windows_of_the_image():
    ramp = torch.arange(32, dtype=torch.uint8)[None, :, None, None].expand(50, 32, 32, 3).contiguous()
    seen = cropped(ramp, draw(50), 0.5)[..., 0, 0]
    spans = seen[:, -1].int() - seen[:, 0].int()
    assert spans.min() >= 14 and spans.max() <= 16
    assert len(seen[:, 0].unique()) > 8, "windows lie all over the image"


# Collapse


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
    numbers = collapse.run(model(Constant()), collapse.Config(), 0).numbers
    assert numbers["rankme"] == pytest.approx(1, abs=1e-3) and numbers["lidar"] == pytest.approx(1, abs=1e-3)
    assert numbers["std"] == pytest.approx(0, abs=1e-5) and numbers["width"] == 8


def test_an_encoder_of_noise_uses_every_direction():
    numbers = collapse.run(model(Noise(8), source(test=1000)), collapse.Config(), 0).numbers
    assert numbers["rankme"] == pytest.approx(8, abs=0.1) and numbers["std"] == pytest.approx(1, abs=0.03)
    assert 7 < numbers["lidar"] < 8


# Semantics


def clusters(apart: float, classes: int = 4, width: int = 16) -> FrozenFeatures:
    random = np.random.default_rng(0)
    centers = random.standard_normal((classes, width))
    centers *= apart / np.linalg.norm(centers, axis=1, keepdims=True)
    labels = {name: random.integers(0, classes, count) for name, count in (("train", 300), ("val", 50), ("test", 400))}
    stage = {n: (centers[ys] + random.standard_normal((len(ys), width))).astype(np.float32) for n, ys in labels.items()}
    return FrozenFeatures([stage], labels, classes)


def test_purity_is_that_of_the_neighbors_scikit_learn_finds():
    what = clusters(apart=2)
    numbers = semantics.run(what, semantics.Config(), 0).numbers
    near = NearestNeighbors(n_neighbors=20, metric="cosine").fit(what.stages[0]["train"])
    rows = near.kneighbors(what.stages[0]["test"], return_distance=False)
    alike = what.labels["train"][rows] == what.labels["test"][:, None]
    for k in (1, 5, 20):
        assert numbers[f"purity@{k}"] == pytest.approx(alike[:, :k].mean(), abs=1e-6)
    expected = silhouette_score(what.stages[0]["test"], what.labels["test"], metric="cosine")
    assert numbers["silhouette"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("apart", "low", "high"), [(0, 0.17, 0.33), (20, 0.999, 1)])
def test_purity_of_noise_is_chance_and_of_what_lies_apart_one(apart, low, high):
    numbers = semantics.run(clusters(apart), semantics.Config(), 0).numbers
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


# Retrieval


def test_retrieval_finds_the_image_itself_and_colors_its_borders():
    """The test images are training images under other labels in part: the first neighbor is the image itself."""
    given = source(train=100, test=100)
    given = replace(given, test=Arrays(given.train.images, given.train.labels))
    whole = model(encoders.build("raw-pixels", 16, 0), given)
    result = retrieval.run(whole, retrieval.Config(neighbors=1, shown=4), 0)
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
    whole = model(encoders.build("convnet", 16, 0))
    numbers = retrieval.run(whole, retrieval.Config(), 0).numbers
    stage, labels = (found := extract(whole)).stages[-1], found.labels
    near = NearestNeighbors(n_neighbors=8, metric="cosine").fit(stage["train"])
    distances, rows = near.kneighbors(stage["test"])
    assert numbers["precision@8"] == pytest.approx((labels["train"][rows] == labels["test"][:, None]).mean(), abs=2e-3)
    assert numbers["similarity@8"] == pytest.approx(1 - distances.mean(), abs=1e-3)


def test_retrieval_without_labels_has_no_borders():
    bare = unlabeled(source())
    result = retrieval.run(model(encoders.build("raw-pixels", 16, 0), bare), retrieval.Config(), 0)
    assert set(result.numbers) == {"similarity@8"}
    assert (result.sheet[:, : retrieval.EDGE] == 255).all() and (result.sheet[:: retrieval.SIDE + 6] == 255).all()


# What they share


def test_neighbors_of_a_zero_row_and_a_small_bank():
    bank = np.array([[3.0, 0], [0, 0.5], [0, 0]], np.float32)
    ((which, cosines, rows),) = nearest_neighbors(np.array([[2.0, 2], [0, 0]], np.float32), bank, 5)
    assert which == slice(0, 2) and rows.shape == (2, 3)
    assert cosines[0].tolist() == pytest.approx([0.5**0.5, 0.5**0.5, 0]) and cosines[1].tolist() == [0, 0, 0]


@pytest.mark.parametrize("c", [0.1, 1.0, 10.0])
def test_logistic_regression_is_scikit_learns(c):
    what = clusters(apart=2)
    x, y = what.stages[0]["train"], what.labels["train"]
    layer = fit_logistic(torch.from_numpy(x), torch.from_numpy(y), 4, c)
    expected = LogisticRegression(C=c, max_iter=1000, tol=1e-6).fit(x, y)
    assert np.allclose(layer.weight.numpy(), expected.coef_, atol=5e-3)
    probabilities = F.softmax(layer(torch.from_numpy(what.stages[0]["test"])), 1).numpy()
    assert np.allclose(probabilities, expected.predict_proba(what.stages[0]["test"]), atol=5e-3)
