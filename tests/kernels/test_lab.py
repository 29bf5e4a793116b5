"""What `lab` promises, against CIELAB's definition in float64."""

import numpy as np
import pytest
import torch

from kernels.lab import bin_centers, lab

PIXELS = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
LIGHTNESS, A, B = 2e-3, 3e-3, 1e-3  # what the docstring says of the table


def linear(pixels: np.ndarray) -> np.ndarray:
    """sRGB in 0..255 to linear light (IEC 61966-2-1)."""
    v = pixels / 255
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def cielab(light: np.ndarray) -> np.ndarray:
    """Linear light [..., 3] to L*, a* and b* (CIE 15), the white being that of R = G = B = 1."""
    xyz = light @ np.array([[0.4124, 0.2126, 0.0193], [0.3576, 0.7152, 0.1192], [0.1805, 0.0722, 0.9505]])
    t = xyz / (0.4124 + 0.3576 + 0.1805, 1.0, 0.0193 + 0.1192 + 0.9505)
    f = np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def still(images, **options):
    """Of whole square images, not flipped."""
    zero = torch.zeros(len(images), dtype=torch.int64)
    return lab(images, zero, torch.zeros(len(images), 2).int(), size=images.shape[1], **{**PIXELS, **options})


def as_image(colors: np.ndarray) -> torch.Tensor:
    """Colors [n * n, 3] as one image."""
    side = int(len(colors) ** 0.5)
    return torch.from_numpy(colors.astype(np.uint8)).view(1, side, side, 3)


def random_images(b=4, h=30, w=33, high=256, seed=0):
    return torch.randint(0, high, (b, h, w, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def assert_nearest(bins: np.ndarray, ab: np.ndarray) -> float:
    """Each bin is the nearest to its color of all, or as near but for the error of the table. -> The share decided."""
    centers = bin_centers().double().numpy()
    nearest, decided = np.empty(len(ab), np.int64), np.empty(len(ab), bool)
    for start in range(0, len(ab), 2**14):
        part = slice(start, start + 2**14)
        distances = ((ab[part, None] - centers) ** 2).sum(2)
        two = np.partition(distances, 1, axis=1)[:, :2]
        nearest[part] = distances.argmin(1)
        # a color that moves by (A, B) moves its squared distances to two centers, d apart, by 2 d . (A, B) at most
        decided[part] = two[:, 1] - two[:, 0] > 2 * 10 * (A + B)
    assert np.array_equal(bins[decided], nearest[decided])
    return decided.mean()


@pytest.mark.parametrize("high", [256, 40])
def test_is_the_lightness_of_the_flipped_window(high):
    images = random_images(high=high)
    flips, offsets = torch.tensor([1, 0, 1, 0]), torch.tensor([[1, 2], [0, 0], [9, 12], [-5, 99]])
    result, _ = lab(images, flips, offsets, size=20, cell=5, **PIXELS)
    for image, flip, (y, x), row in zip(images, flips, ((1, 2), (0, 0), (9, 12), (0, 13)), result, strict=True):
        window = image[y : y + 20, x : x + 20].numpy()
        expected = cielab(linear(window[:, ::-1] if flip else window))[..., 0] * 2.55
        assert np.abs(row.numpy() - expected).max() < LIGHTNESS


def test_colors_of_the_literature():
    """L*, a* and b* of sRGB's primaries and of white and black, for the white D65 (Lindbloom's calculator)."""
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255] * 3], np.uint8)
    lightness, bins = still(as_image(colors), cell=1)
    found = lightness[0, 0].flatten().numpy() / 2.55
    assert found == pytest.approx([53.24, 87.73, 32.30, 100.0], abs=0.02)
    wanted = [[80, 70], [-90, 80], [80, -110], [0, 0]]  # of (80.09, 67.20), (-86.18, 83.18) and (79.19, -107.86)
    assert bin_centers()[bins.flatten()].tolist() == wanted


def test_grays_are_neutral():
    grays = np.arange(256)[:, None].repeat(3, 1)
    lightness, bins = still(as_image(grays), cell=1)
    assert (bin_centers()[bins] == 0).all()
    assert (lightness[0, 0].flatten().diff() > 0).all()
    assert lightness.min() == 0 and lightness.max() == pytest.approx(255, abs=1e-4)


@pytest.mark.parametrize("high", [256, 16])
def test_bins_are_the_nearest(high):
    colors = np.random.default_rng(0).integers(0, high, (300**2, 3))
    bins = still(as_image(colors), cell=1)[1].flatten().numpy()
    assert assert_nearest(bins, cielab(linear(colors))[:, 1:]) > 0.97


@pytest.mark.parametrize("cell", [1, 2, 3, 6, 30])
def test_a_cell_has_the_mean_of_its_light(cell):
    images = random_images(40, w=30)
    images[:20] = images[:20].flip(3) // 3 * torch.tensor([3, 2, 1], dtype=torch.uint8)
    n = 30 // cell
    light = linear(images.numpy()).reshape(40, n, cell, n, cell, 3).mean((2, 4))
    bins = still(images, cell=cell)[1]
    assert bins.dtype == torch.int64 and bins.shape == (40, n, n)
    assert assert_nearest(bins.flatten().numpy(), cielab(light)[..., 1:].reshape(-1, 2)) > 0.9


@pytest.mark.slow
def test_bins_are_the_squares_that_hold_a_color():
    """Of all 2^24, and none else; they are numbered by a* and then b*."""
    held = np.zeros((25, 25), bool)
    light, blue = linear(np.arange(256)), np.arange(256)
    green = np.arange(256)[:, None]
    for red in range(256):
        ab = cielab(np.stack(np.broadcast_arrays(light[red], light[green], light[blue]), -1))[..., 1:]
        row, column = np.moveaxis(np.floor(ab / 10 + 12.5).astype(int), -1, 0)
        held[row, column] = True
    centers = (np.argwhere(held) - 12) * 10
    assert len(centers) == 261
    assert bin_centers().dtype == torch.float32 and np.array_equal(bin_centers().numpy(), centers)


def test_a_color_between_the_squares_has_a_bin():
    """Means of light may lie where no color of 8 bits does: every mixture of the corners of the gamut has a bin."""
    corners = torch.tensor([[r, g, b] for r in (0, 255) for g in (0, 255) for b in (0, 255)], dtype=torch.uint8)
    images = corners[torch.randint(0, 8, (2000, 2, 2), generator=torch.Generator().manual_seed(0))]
    bins = still(images, cell=2)[1].flatten()
    light = linear(images.numpy()).mean((1, 2))
    off = (bin_centers()[bins].double().numpy() - cielab(light)[:, 1:]).__abs__()
    assert off.max() < 10  # its own square's, or a neighbor's


def test_normalizes_and_rounds():
    images = random_images(w=30)
    values, bins = still(images, cell=5)
    mean, std = torch.tensor([10.0, 20, 30]), torch.tensor([2.0, 4, 8])
    result, same = still(images, cell=5, mean=mean.tolist(), std=std.tolist(), channels_last=True)
    assert torch.equal(result, (values - mean.view(3, 1, 1)) / std.view(3, 1, 1)) and torch.equal(bins, same)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(still(images, cell=5, dtype=torch.uint8)[0], (values + 0.5).floor().to(torch.uint8))


@pytest.mark.slow
def test_compiles():
    images = random_images(w=30)

    def call(batch):
        return still(batch, cell=5)

    for result, expected in zip(torch.compile(call, fullgraph=True, backend="aot_eager")(images), call(images)):
        assert torch.equal(result, expected)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("images", {"images": torch.zeros(2, 8, 8, 3)}),
        ("images", {"images": torch.zeros(2, 8, 8, 1, dtype=torch.uint8)}),
        ("flips", {"flips": torch.zeros(2)}),
        ("offsets", {"offsets": torch.zeros(2, dtype=torch.int64)}),
        ("offsets", {"offsets": torch.zeros(2, 2, dtype=torch.int64, device="meta")}),
        ("size", {"size": 9}),
        ("cell", {"cell": 3}),
        ("cell", {"cell": 16}),
        ("cell", {"cell": 0}),
        ("cell", {"cell": 2.0}),
        ("mean", {"mean": (1.0,)}),
        ("std", {"std": (1.0, 0.0, 1.0)}),
        ("dtype", {"dtype": torch.float64}),
    ],
)
def test_names_the_bad_argument(name, change):
    images = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
    labels = {"flips": torch.zeros(2).int(), "offsets": torch.zeros(2, 2, dtype=torch.int64)}
    with pytest.raises(ValueError, match=f"^{name}: got .*; expected "):
        lab(**{"images": images, **labels, "size": 8, "cell": 2, **PIXELS, **change})
