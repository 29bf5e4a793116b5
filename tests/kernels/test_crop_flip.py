"""What `crop_flip` promises, on small images."""

import pytest
import torch
from torch.nn.functional import interpolate

from kernels.crop_flip import crop_flip

PIXELS = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
BOXES = [(0, 0, 61, 83), (3, 5, 40, 41), (7, 2, 53, 9), (60, 82, 1, 1), (0, 40, 1, 43), (20, 1, 33, 32)]


@pytest.fixture
def images():
    return torch.randint(0, 256, (6, 61, 83, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def unmirrored(images, boxes, size, **keywords):
    return crop_flip(images, torch.zeros(len(images)).int(), torch.tensor(boxes), size=size, **PIXELS | keywords)


@pytest.mark.parametrize("size", [1, 7, 32, 33, 100])
def test_is_antialiased_interpolation(images, size):
    """Within 2^-15 of a grey level of torch's in float64; torch's in float32 is itself 2^-8 off."""
    result = unmirrored(images, BOXES, size)
    for k, (y, x, height, width) in enumerate(BOXES):
        box = images[k : k + 1, y : y + height, x : x + width].permute(0, 3, 1, 2).double()
        expected = interpolate(box, (size, size), mode="bilinear", antialias=True, align_corners=False)
        assert (result[k] - expected[0]).abs().max() < 2**-15


def test_box_of_the_output_size_gives_its_pixels(images):
    result = unmirrored(images, [(4, 9, 57, 57)] * 6, 57)
    assert torch.equal(result, images[:, 4:, 9:66].permute(0, 3, 1, 2).float())


def test_keeps_a_plain_image_plain():
    images = torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 19, 23, 3)
    result = unmirrored(images, [(1, 2, 17, 13)] * 256, 11)
    assert torch.equal(result, images[:, :11, :11].permute(0, 3, 1, 2).float())


def test_mirrors_after_resampling(images):
    flips = torch.tensor([0, 1, 0, 1, 1, 2])
    result = crop_flip(images, flips, torch.tensor(BOXES), size=20, **PIXELS)
    plain = unmirrored(images, BOXES, 20)
    assert torch.equal(result, torch.where((flips != 0).view(-1, 1, 1, 1), plain.flip(3), plain))


def test_boxes_are_cut_off_at_the_border(images):
    result = unmirrored(images[:4], [(-5, -9, 30, 30), (50, 70, 99, 99), (2, 3, 0, -7), (2**40, -(2**40), 5, 5)], 10)
    inside = unmirrored(images[:4], [(0, 0, 25, 21), (50, 70, 11, 13), (2, 3, 1, 1), (60, 0, 1, 1)], 10)
    assert torch.equal(result, inside)


def test_normalises_and_rounds(images):
    values = unmirrored(images, BOXES, 24)
    mean, std = torch.tensor([10.0, 20, 30]), torch.tensor([2.0, 4, 8])
    result = unmirrored(images, BOXES, 24, mean=mean.tolist(), std=std.tolist())
    assert torch.equal(result, (values - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    rounded = unmirrored(images, BOXES, 24, dtype=torch.uint8)
    assert torch.equal(rounded, (values + 0.5).floor().to(torch.uint8))


@pytest.mark.parametrize(("height", "width", "size"), [(1024, 1024, 1), (2, 2**14, 256)])
def test_largest_sides_stay_exact(height, width, size):
    """The steepest shrinking and the longest side that are allowed, all white, so that no sum can be larger."""
    images = torch.full((1, height, width, 1), 255, dtype=torch.uint8)
    box = torch.tensor([[0, 0, height, width]])
    result = crop_flip(images, torch.zeros(1).int(), box, size=size, mean=(0.0,), std=(1.0,))
    assert bool((result == 255).all())


def test_compiles(images):
    def call(batch):
        return unmirrored(batch, BOXES, 16, channels_last=True)

    assert torch.equal(torch.compile(call, fullgraph=True, backend="aot_eager")(images), call(images))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("images", {"images": torch.zeros(2, 8, 8, 3)}),
        ("flips", {"flips": torch.zeros(2)}),
        ("boxes", {"boxes": torch.zeros(2, 4)}),
        ("boxes", {"boxes": torch.zeros(2, 3, dtype=torch.int64)}),
        ("size", {"size": 0}),
        ("size", {"size": 2**14 + 1}),
        ("size", {"size": 1, "images": torch.zeros(2, 1, 1025, 3, dtype=torch.uint8)}),
        ("size", {"size": 300, "images": torch.zeros(2, 1, 2**14 + 1, 3, dtype=torch.uint8)}),
        ("mean", {"mean": (1.0,)}),
        ("std", {"std": (1.0, 0.0, 1.0)}),
        ("dtype", {"dtype": torch.float64}),
    ],
)
def test_names_the_bad_argument(name, change):
    images = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
    labels = {"flips": torch.zeros(2, dtype=torch.int64), "boxes": torch.zeros(2, 4, dtype=torch.int64)}
    with pytest.raises(ValueError, match=f"^{name}: got .*; expected "):
        crop_flip(**{"images": images, **labels, "size": 8, **PIXELS, **change})
