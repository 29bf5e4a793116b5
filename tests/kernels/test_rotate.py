"""What `rotate` and `rotate_all` promise, on small images."""

import pytest
import torch

from kernels.rotate import rotate, rotate_all

PIXELS = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


@pytest.fixture
def images():
    return torch.randint(0, 256, (4, 9, 11, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_equals_rot90(images):
    rotations, still = torch.arange(4), torch.zeros(4, dtype=torch.int64)
    offsets = torch.tensor([[1, 2]]).expand(4, 2)
    result = rotate(images, rotations, still, offsets, size=8, dtype=torch.uint8, **PIXELS)
    for k in range(4):
        assert torch.equal(result[k], images[k, 1:9, 2:10].rot90(k, (0, 1)).permute(2, 0, 1))


def test_flips_before_it_turns(images):
    result = rotate(
        images,
        torch.full((4,), 5),
        torch.tensor([1, 0, 1, 0]),
        torch.zeros(4, 2, dtype=torch.int32),
        size=9,
        dtype=torch.uint8,
        **PIXELS,
    )
    assert torch.equal(result[0], images[0, :9, :9].flip(1).rot90(1, (0, 1)).permute(2, 0, 1))
    assert torch.equal(result[1], images[1, :9, :9].rot90(1, (0, 1)).permute(2, 0, 1))


def test_rotate_all_interleaves_the_turns(images):
    flips, offsets = torch.tensor([0, 1, 1, 0]), torch.randint(0, 3, (4, 2))
    keywords = {"size": 7, "mean": (120.0, 110.0, 100.0), "std": (60.0, 61.0, 62.0), "channels_last": True}
    every = rotate_all(images, flips, offsets, **keywords)
    for k in range(4):
        assert torch.equal(every[k::4], rotate(images, torch.full((4,), k), flips, offsets, **keywords))
    assert every.is_contiguous(memory_format=torch.channels_last)


def test_normalizes(images):
    labels = torch.zeros(4, dtype=torch.int64)
    result = rotate(images, labels, labels, torch.zeros(4, 2).long(), size=9, mean=(10, 20, 30), std=(2, 4, 8))
    expected = (images[:, :9, :9].float() - torch.tensor([10.0, 20, 30])) / torch.tensor([2.0, 4, 8])
    assert torch.equal(result, expected.permute(0, 3, 1, 2))


def test_windows_outside_are_moved_inside(images):
    labels, far = torch.zeros(4, dtype=torch.int64), torch.tensor([[-(2**62), 2**62]] * 4)
    result = rotate(images, labels, labels, far, size=5, dtype=torch.uint8, **PIXELS)
    assert torch.equal(result, images[:, :5, 6:].permute(0, 3, 1, 2))


def test_compiles(images):
    labels, offsets = torch.arange(4), torch.zeros(4, 2, dtype=torch.int64)

    def call(batch):
        return rotate(batch, labels, labels % 2, offsets, size=6, **PIXELS)

    assert torch.equal(torch.compile(call, fullgraph=True, backend="aot_eager")(images), call(images))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("images", {"images": torch.zeros(2, 8, 8, 3)}),
        ("images", {"images": torch.zeros(2, 8, 8, 2, dtype=torch.uint8)}),
        ("images", {"images": torch.zeros(2, 0, 8, 3, dtype=torch.uint8)}),
        ("rotations", {"rotations": torch.zeros(3, dtype=torch.int64)}),
        ("flips", {"flips": torch.zeros(2)}),
        ("offsets", {"offsets": torch.zeros(2, dtype=torch.int64)}),
        ("offsets", {"offsets": torch.zeros(2, 2, dtype=torch.int64, device="meta")}),
        ("size", {"size": 9}),
        ("size", {"size": 0}),
        ("mean", {"mean": (1.0,)}),
        ("std", {"std": (1.0, 0.0, 1.0)}),
        ("dtype", {"dtype": torch.float64}),
    ],
)
def test_names_the_bad_argument(name, change):
    labels = torch.zeros(2, dtype=torch.int64)
    arguments = {
        "images": torch.zeros(2, 8, 8, 3, dtype=torch.uint8),
        "rotations": labels,
        "flips": labels,
        "offsets": torch.zeros(2, 2, dtype=torch.int64),
        "size": 4,
        **PIXELS,
        **change,
    }
    with pytest.raises(ValueError, match=f"^{name}: got .*; expected "):
        rotate(**arguments)
