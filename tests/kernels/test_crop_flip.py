"""What `crop_flip` promises, on small images."""

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from kernels.crop_flip import KERNELS, crop_flip

KERNEL = KERNELS[0]
PIXELS = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
BOXES = [(0, 0, 61, 83), (3, 5, 40, 41), (7, 2, 53, 9), (60, 82, 1, 1), (0, 40, 1, 43), (20, 1, 33, 32)]


@pytest.fixture
def images():
    return torch.randint(0, 256, (6, 61, 83, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def unmirrored(images, boxes, size, **keywords):
    return crop_flip(images, torch.zeros(len(images)).int(), torch.tensor(boxes), size=size, **PIXELS | keywords)


@pytest.mark.parametrize("size", [1, 7, 32, 33, 100])
def test_is_antialiased_interpolation(images, size):
    """Within 2^-15 of a gray level of torch's in float64; torch's in float32 is itself 2^-8 off."""
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


def test_normalizes_and_rounds(images):
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


@pytest.mark.parametrize("c", [1, 3])
@pytest.mark.parametrize("side", [76, 77, 90, 91])
def test_totals_about_32_bits_stay_exact(side, c):
    """Where the loop for the CPU changes from 32 bits to 64, at 91 pixels, and where the highest of 32 is first set."""
    images = torch.randint(250, 256, (3, side, side, c), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    images[1] = 255
    regions = torch.tensor([[k * side * side * c, side, side] for k in range(3)])
    box, flips = torch.tensor([[0, 0, side, side]] * 3), torch.tensor([0, 0, 1])
    values = images.flatten(), regions, flips, box, 4, [0.0] * c, [1.0] * c, torch.float32, True
    assert torch.equal(KERNEL.cpu(*values), KERNEL.reference(*values))


def mixed(sizes, c=3):
    """Images of these sizes, and the bytes and regions of all of them, with unused bytes around each."""
    generator, images, parts, regions = torch.Generator().manual_seed(1), [], [torch.zeros(3, dtype=torch.uint8)], []
    for h, w in sizes:
        images.append(torch.randint(0, 256, (h, w, c), dtype=torch.uint8, generator=generator))
        regions.append((sum(map(len, parts)), h, w))
        parts += [images[-1].flatten(), torch.full((7,), 255, dtype=torch.uint8)]
    return images, torch.cat(parts), torch.tensor(regions)


@pytest.mark.parametrize("c", [1, 3])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_images_of_any_sizes_are_each_as_alone(c, dtype):
    """Some several times and out of order, and with boxes that leave only the smaller ones."""
    images, data, regions = mixed([(61, 83), (1, 1), (7, 300), (40, 12)], c)
    order = torch.tensor([3, 0, 1, 0, 2, 2])
    boxes, flips = torch.tensor([(-2, 3, 35, 20), *BOXES[1:]]), torch.arange(6) % 2
    options = {"size": 24, "mean": (9.0,) * c, "std": (3.0,) * c, "dtype": dtype, "channels_last": True}
    result = crop_flip(data, flips, boxes, regions=regions[order], **options)
    for k, image in enumerate(order.tolist()):
        alone = crop_flip(images[image][None], flips[k : k + 1], boxes[k : k + 1], **options)
        assert torch.equal(result[k : k + 1], alone)


def test_images_may_lie_beyond_two_gigabytes():
    image = torch.arange(48, dtype=torch.uint8)
    data = torch.from_numpy(np.zeros(2**32 + 48, np.uint8))  # pages that nobody touches take no memory
    data[2**32 :] = image
    regions, box, none = torch.tensor([[2**32, 4, 4]]), torch.tensor([[0, 0, 4, 4]]), torch.zeros(1).int()
    result = crop_flip(data, none, box, regions=regions, size=4, dtype=torch.uint8, **PIXELS)
    assert torch.equal(result[0].permute(1, 2, 0).flatten(), image)


def test_with_places_only_the_sides_of_the_boxes_count():
    data, regions = torch.full((20_000 * 40,), 7, dtype=torch.uint8), torch.tensor([[0, 20_000, 40]])
    options = {"size": 2, "mean": (0.0,), "std": (1.0,), "regions": regions}
    for box in ([19_980, -5, 40, 90], [5, 0, 1448, 40]):
        assert bool((crop_flip(data, torch.zeros(1).int(), torch.tensor([box]), **options) == 7).all())
    with pytest.raises(ValueError, match=r"^boxes: got \[5, 0, 1449, 40\], 1449 pixels long .*; expected at most 1448"):
        crop_flip(data, torch.zeros(1).int(), torch.tensor([[5, 0, 1449, 40]]), **options)


@pytest.mark.parametrize(
    "bad",
    [(-1, 4, 4), (1, 4, 12), (0, 0, 4), (0, 4, -4), (2**62, 4, 4), (0, 2**62, 2**62), (0, 49, 1), (0, 2**16, 2**15)],
)
def test_names_the_bad_place(bad):
    data, regions = torch.zeros(3 * 48, dtype=torch.uint8), torch.tensor([(0, 12, 4), bad, (96, 4, 4)])
    none = torch.zeros(3, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match=rf"^regions: got \[{', '.join(map(str, bad))}\]; expected .*144"):
        crop_flip(data, none[:, 0], none, regions=regions, size=4, **PIXELS)


def test_names_what_does_not_fit_the_places():
    data, none = torch.zeros(48, dtype=torch.uint8), torch.zeros(2, 4, dtype=torch.int64)
    for regions in (none[:, :2], none[..., :3].float(), none[:, :3].to("meta"), torch.tensor(0), [[0, 4, 4]]):
        with pytest.raises(ValueError, match=r"^regions: got .*; expected "):
            crop_flip(data, none[:, 0], none, regions=regions, size=4, **PIXELS)
    with pytest.raises(ValueError, match=r"^images: got .*; expected torch.uint8 \[n\]"):
        crop_flip(data.view(1, 4, 4, 3), none[:1, 0], none[:1], regions=none[:1, :3], size=4, **PIXELS)
    with pytest.raises(ValueError, match=r"^mean: got .*; expected 1 or 3 numbers"):
        crop_flip(data, none[:, 0], none, regions=none[:, :3], size=4, mean=(1.0, 2.0), std=(1.0, 2.0))


@pytest.mark.slow
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
