"""What `multi_crop` promises, on small images."""

import pytest
import torch
from torch.nn.functional import interpolate

from kernels.crop_flip import crop_flip, multi_crop

PIXELS = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
HEIGHT, WIDTH = 61, 83
KINDS = [([40, 17], [2, 3]), ([7], [4]), ([33, 64, 33], [1, 1, 2]), ([20, 9, 5], [1, 0, 2])]
each_kind = pytest.mark.parametrize(("sizes", "counts"), KINDS)


def crops(count, b=4, seed=0):
    """Images, and flips and boxes inside them of `count` crops of each."""
    draw = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (b, HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=draw)
    height, width = (torch.randint(1, high + 1, (b, count), generator=draw) for high in (HEIGHT, WIDTH))
    y, x = ((torch.rand(b, count, generator=draw) * (1 + free)).long() for free in (HEIGHT - height, WIDTH - width))
    return images, torch.randint(0, 2, (b, count), generator=draw), torch.stack([y, x, height, width], dim=2)


@each_kind
def test_is_antialiased_interpolation(sizes, counts):
    """Within 2^-15 of a gray level of torch's in float64, each crop in its row."""
    images, flips, boxes = crops(sum(counts))
    results = multi_crop(images, flips, boxes, sizes=sizes, counts=counts, **PIXELS)
    first = 0
    for size, count, result in zip(sizes, counts, results, strict=True):
        assert result.shape == (len(images) * count, 3, size, size)
        for row, crop in enumerate(result):
            image, nth = row // count, first + row % count
            y, x, height, width = boxes[image, nth].tolist()
            box = images[image, y : y + height, x : x + width].permute(2, 0, 1)[None].double()
            expected = interpolate(box, (size, size), mode="bilinear", antialias=True, align_corners=False)[0]
            expected = expected.flip(2) if flips[image, nth] else expected
            assert (crop - expected).abs().max() < 2**-15
        first += count


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
@each_kind
def test_every_size_is_as_alone(sizes, counts, dtype, channels_last):
    images, flips, boxes = crops(sum(counts), seed=1)
    options = {"mean": (9.0, 8.0, 7.0), "std": (3.0, 2.0, 1.0), "dtype": dtype, "channels_last": channels_last}
    results = multi_crop(images, flips, boxes, sizes=sizes, counts=counts, **options)
    first = 0
    for size, count, result in zip(sizes, counts, results, strict=True):
        own = slice(first, first + count)
        again = images.repeat_interleave(count, dim=0)
        alone = crop_flip(again, flips[:, own].flatten(), boxes[:, own].flatten(0, 1), size=size, **options)
        assert torch.equal(result, alone) and result.stride() == alone.stride()
        first += count


def test_images_of_any_sizes_are_each_as_alone():
    """Some several times and out of order, and with boxes that leave only the smaller ones."""
    whole, flips, boxes = crops(3, b=5, seed=2)
    images = [image[:h, :w] for image, (h, w) in zip(whole, [(61, 83), (1, 1), (7, 80), (40, 12)])]
    ends = torch.tensor([image.numel() for image in images]).cumsum(0).tolist()
    places = torch.tensor([(end - image.numel(), *image.shape[:2]) for end, image in zip(ends, images)])
    order = torch.tensor([3, 0, 1, 0, 2])
    options = {"sizes": [24, 10], "counts": [1, 2], "dtype": torch.uint8, **PIXELS}
    data = torch.cat([image.flatten() for image in images])
    results = multi_crop(data, flips, boxes, regions=places[order], **options)
    for row, image in enumerate(order.tolist()):
        alone = multi_crop(images[image][None], flips[row : row + 1], boxes[row : row + 1], **options)
        for result, expected, count in zip(results, alone, options["counts"], strict=True):
            assert torch.equal(result[count * row : count * (row + 1)], expected)


def test_boxes_in_images_of_any_sizes_are_limited_by_their_own_size():
    data, regions = torch.full((1500 * 3,), 7, dtype=torch.uint8), torch.tensor([[0, 1500, 1]])
    small, large = [0, 0, 1448, 1], [0, 0, 1449, 1]  # 2^20 * 2 is between the squares
    options = {"flips": torch.zeros(1, 2).int(), "sizes": [4, 2], "counts": [1, 1], "regions": regions, **PIXELS}
    assert all(bool((crop == 7).all()) for crop in multi_crop(data, boxes=torch.tensor([[large, small]]), **options))
    with pytest.raises(ValueError, match=r"^boxes: got \[0, 0, 1449, 1\], 1449 pixels long .*; expected at most 1448"):
        multi_crop(data, boxes=torch.tensor([[small, large]]), **options)


def test_results_have_memory_of_their_own():
    images, flips, boxes = crops(4)
    large, small = multi_crop(images, flips, boxes, sizes=[24, 12], counts=[2, 2], **PIXELS)
    before = large.clone()
    small.zero_()
    assert torch.equal(large, before)
    assert large.untyped_storage().nbytes() == large.nbytes


@pytest.mark.slow
def test_compiles():
    images, flips, boxes = crops(5)

    def call(batch):
        return multi_crop(batch, flips, boxes, sizes=[16, 9], counts=[2, 3], channels_last=True, **PIXELS)

    for result, expected in zip(torch.compile(call, fullgraph=True, backend="aot_eager")(images), call(images)):
        assert torch.equal(result, expected)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("images", {"images": torch.zeros(2, 8, 8, 3)}),
        ("flips", {"flips": torch.zeros(2, dtype=torch.int64)}),
        ("flips", {"counts": (1, 1)}),
        ("boxes", {"boxes": torch.zeros(2, 4, dtype=torch.int64)}),
        ("boxes", {"boxes": torch.zeros(2, 3, 3, dtype=torch.int64)}),
        ("sizes", {"sizes": 8}),
        ("sizes", {"sizes": ()}),
        ("sizes", {"sizes": (8, 0)}),
        ("sizes", {"sizes": (8, 4.0)}),
        ("sizes", {"sizes": (8, 2**14 + 1)}),
        ("sizes", {"sizes": (8, 1), "images": torch.zeros(2, 1, 1025, 3, dtype=torch.uint8)}),
        ("counts", {"counts": 3}),
        ("counts", {"counts": (3,)}),
        ("counts", {"counts": (1, 1, 1)}),
        ("counts", {"counts": (4, -1)}),
        ("counts", {"counts": (1.0, 2.0)}),
        ("mean", {"mean": (1.0,)}),
        ("std", {"std": (1.0, 0.0, 1.0)}),
        ("dtype", {"dtype": torch.float64}),
    ],
)
def test_names_the_bad_argument(name, change):
    images = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
    labels = {"flips": torch.zeros(2, 3, dtype=torch.int64), "boxes": torch.zeros(2, 3, 4, dtype=torch.int64)}
    good = {"images": images, **labels, "sizes": (8, 4), "counts": (1, 2), **PIXELS}
    with pytest.raises(ValueError, match=f"^{name}: got .*; expected "):
        multi_crop(**{**good, **change})
