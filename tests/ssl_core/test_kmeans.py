"""The dictionary of patches against the paper's formulas, written from their definitions."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from support.synthetic_images import gradients

from ssl_core.data.dataset import Arrays, Files, Source
from ssl_core.encoders import kmeans
from ssl_core.encoders.build import build, depends_on_size, describe, digest, is_floor
from ssl_core.encoders.kmeans import _draw_patches, _spherical_kmeans, _whitening, learn_dictionary
from ssl_core.encoders.patch_dictionary import PATCH, VALUES, PatchDictionary, standardize
from ssl_core.errors import UserError

MEAN, STD = (120.0, 110.0, 100.0), (60.0, 50.0, 70.0)
CPU = torch.device("cpu")


def noisy(count: int, size: int) -> torch.Tensor:
    """[count, size, size, 3] uint8 without patches that are alike."""
    noise = torch.randint(0, 60, (count, size, size, 3), generator=torch.Generator().manual_seed(1))
    return (gradients(count, size).float() * 0.7 + noise).byte()


def source(images: torch.Tensor) -> Source:
    split = Arrays(images.numpy(), np.full(len(images), -1))
    return Source("it", "it", images.shape[1], split, split, (), MEAN, STD)


def filled(centroids: int) -> PatchDictionary:
    generator = torch.Generator().manual_seed(2)
    one = build(f"kmeans-{centroids}", 32, 0)
    one.pixel_mean.copy_(torch.tensor(MEAN))
    one.pixel_std.copy_(torch.tensor(STD))
    one.patch_mean.copy_(torch.randn(VALUES, generator=generator) * 0.1)
    one.whitening.copy_(torch.randn(VALUES, VALUES, generator=generator) * 0.2)
    one.centroids.copy_(torch.randn(centroids, VALUES, generator=generator))
    return one


def by_definition(one: PatchDictionary, image: np.ndarray) -> np.ndarray:
    """Mean activations of four quadrants, [centroids, 2, 2], of an image [h, w, 3], in float64, patch by patch."""
    rows, columns = image.shape[0] - PATCH + 1, image.shape[1] - PATCH + 1
    near = np.empty((rows, columns, len(one.centroids)))
    for y in range(rows):
        for x in range(columns):
            patch = image[y : y + PATCH, x : x + PATCH].transpose(2, 0, 1).reshape(-1).astype(np.float64)
            patch = (patch - patch.mean()) / np.sqrt(patch.var(ddof=1) + 10)
            white = (patch - one.patch_mean.double().numpy()) @ one.whitening.double().numpy()
            distances = cdist(white[None], one.centroids.double().numpy())[0]
            near[y, x] = np.maximum(0, distances.mean() - distances)
    tops, lefts = (
        [slice(0, -(-n // 2)), slice(n // 2, n)] for n in (rows, columns)
    )  # quadrants share the middle row and column where their number is odd
    return np.array([[near[top, left].mean((0, 1)) for left in lefts] for top in tops]).transpose(2, 0, 1)


@pytest.mark.parametrize("size", [(16, 16), (13, 20)])
def test_activations_are_those_of_the_paper(size):
    one, images = filled(7), noisy(5, 20)[:, : size[0], : size[1]]
    pixels = (images.permute(0, 3, 1, 2).float() - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    [found] = one(pixels)
    assert found.shape == (5, 7, 2, 2)
    for image, map in zip(images.numpy(), found.double().numpy()):
        np.testing.assert_allclose(map, by_definition(one, image), rtol=1e-4, atol=1e-5)


def test_larger_images_are_averaged_first():
    one, small = filled(5), noisy(2, 32).permute(0, 3, 1, 2).float()
    large = small.repeat_interleave(3, 2).repeat_interleave(3, 3)
    torch.testing.assert_close(one(large), one(small))


def test_patches_are_whole_and_from_everywhere():
    """Pixels that name their place and channel: each patch is 6 rows and columns, of one image, of all channels."""
    rows, columns = torch.meshgrid(torch.arange(9), torch.arange(11), indexing="ij")
    place = rows * 11 + columns
    image = torch.stack([place, place + 1000, place + 2000]).float()
    images = torch.stack([image, image + 10_000])
    patches = _draw_patches(images, 200, torch.Generator().manual_seed(0)).view(2, 200, 3, PATCH, PATCH)
    starts = patches[:, :, 0, 0, 0]
    expected = (torch.arange(PATCH)[:, None] * 11 + torch.arange(PATCH))[None] + torch.tensor([0, 1000, 2000])[
        :, None, None
    ]
    assert torch.equal(patches - starts[:, :, None, None, None], expected.expand(2, 200, -1, -1, -1).float())
    assert {int(v) for v in starts[0]} == {int(v) for v in place[:4, :6].flatten()}
    assert {int(v) - 10_000 for v in starts[1]} == {int(v) for v in place[:4, :6].flatten()}


def test_whitening_is_that_of_principal_components():
    """With 0.1 added to each variance; in a basis of scikit-learn's, the covariance is v / (v + 0.1)."""
    patches = standardize(_draw_patches(noisy(40, 24).permute(0, 3, 1, 2).float(), 50, torch.Generator()))
    centered = patches - patches.mean(0)
    matrix = _whitening(centered)
    found = PCA().fit(centered.double().numpy())
    along = (centered @ matrix).double().numpy() @ found.components_.T
    variances = found.explained_variance_
    np.testing.assert_allclose(np.cov(along.T), np.diag(variances / (variances + 0.1)), atol=2e-4)
    torch.testing.assert_close(matrix, matrix.T)


def test_clusters_are_those_of_directions(monkeypatch):
    """Against assignment by the largest cosine, patch by patch; an empty cluster keeps its direction."""
    monkeypatch.setattr(kmeans, "ROWS", 37)
    monkeypatch.setattr(kmeans, "ITERATIONS", 4)
    patches = torch.randn(300, VALUES, generator=torch.Generator().manual_seed(3)) + 0.4
    found = _spherical_kmeans(patches, 6, torch.Generator().manual_seed(4))
    start = torch.randn(6, VALUES, generator=torch.Generator().manual_seed(4)).double().numpy()
    means = start / np.linalg.norm(start, axis=1, keepdims=True)
    for _ in range(4):
        directions = means / np.linalg.norm(means, axis=1, keepdims=True)
        clusters = [[one] for one in directions]
        for patch in patches.double().numpy():
            cosines = [patch @ one / np.linalg.norm(patch) for one in directions]
            clusters[int(np.argmax(cosines))].append(patch)
        means = np.array([np.mean(cluster, axis=0) for cluster in clusters])
    np.testing.assert_allclose(found.numpy(), means, rtol=1e-4, atol=1e-5)
    far = _spherical_kmeans(torch.ones(5, VALUES), 3, torch.Generator().manual_seed(0))
    assert sorted(round(float(one.norm()), 3) == 1 for one in far) == [False, True, True]


def test_a_seed_decides_the_dictionary(monkeypatch):
    monkeypatch.setattr(kmeans, "PATCHES", 2000)
    given = source(noisy(50, 16))
    first, again, other = (learn_dictionary(given, 8, seed, CPU, 1) for seed in (0, 0, 1))
    assert digest(first.dictionary) == digest(again.dictionary) != digest(other.dictionary)
    assert first.images == 50 and first.macs == kmeans.ITERATIONS * 2000 * 8 * VALUES
    assert first.dictionary.pixel_mean.tolist() == list(MEAN) and not list(first.dictionary.parameters())


def test_images_that_cannot_be_decoded_are_left_out(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(kmeans, "PATCHES", 500)
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path in paths:
        path.write_bytes(b"nothing")
    files = Files(paths, np.full(3, -1))
    some = Source("some", "it", 16, files, files, (), MEAN, STD)
    with pytest.raises(UserError, match="some: none of 3 training images can be decoded"):
        learn_dictionary(some, 4, 0, CPU, 1)
    Image.fromarray(noisy(1, 16)[0].numpy()).save(paths[1])
    assert learn_dictionary(some, 4, 0, CPU, 1).images == 1


def test_a_name_says_how_many_patches():
    assert is_floor("kmeans-16") and is_floor("raw-pixels") and not is_floor("convnet")
    info = describe(build("kmeans-16", 96, 0), "kmeans-16", 96)
    assert info.widths == (16,) and not depends_on_size("kmeans-16")
    with pytest.raises(UserError, match="'kmeans-x' cannot be built"):
        build("kmeans-x", 32, 0)


def test_a_traced_dictionary_takes_any_number_of_images():
    """As exports are: it goes image by image where it runs, and must not keep how many there were."""
    one, x = filled(5), torch.randn(9, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    traced = torch.jit.trace(one, x[:2], strict=False)
    torch.testing.assert_close(traced(x), one(x))
