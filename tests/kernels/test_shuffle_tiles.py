"""What `shuffle_tiles` promises, on small images."""

import pytest
import torch

from kernels.shuffle_tiles import shuffle_tiles

PIXELS = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "standardize": False}
CORNERS = torch.tensor([[[0, 0], [0, 4], [4, 0], [4, 4]]])


def labels(**change):
    values = {"permutations": [[0, 1, 2, 3]], "shifts": [[[0, 0]] * 3], "grays": [0]}
    return {"corners": CORNERS, **{k: torch.tensor(v) for k, v in values.items()}, **change}


@pytest.fixture
def images():
    return torch.randint(0, 256, (1, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_a_row_holds_the_tile_its_permutation_names(images):
    order = torch.tensor([[2, 0, 3, 1]])
    result = shuffle_tiles(images, **labels(permutations=order), tile=4, dtype=torch.uint8, **PIXELS)
    quarters = [images[0, y : y + 4, x : x + 4].permute(2, 0, 1) for y, x in ((4, 0), (0, 0), (4, 4), (0, 4))]
    assert torch.equal(result, torch.stack(quarters))


def test_shifts_each_channel_and_clamps(images):
    shifts = torch.tensor([[[0, 0], [1, -1], [-9, 2**40]]])
    first = shuffle_tiles(images, **labels(shifts=shifts), tile=4, dtype=torch.uint8, **PIXELS)[0]
    rows, columns = torch.tensor([1, 2, 3, 4]), torch.tensor([0, 0, 1, 2])
    assert torch.equal(first[0], images[0, :4, :4, 0])
    assert torch.equal(first[1], images[0, rows][:, columns, 1])
    assert torch.equal(first[2], images[0, 0, 7, 2].expand(4, 4))


def test_gray_tiles_have_equal_channels(images):
    result = shuffle_tiles(images, **labels(grays=torch.tensor([1])), tile=4, dtype=torch.uint8, **PIXELS).int()
    luma = images[0, :4, :4].float() @ torch.tensor([0.299, 0.587, 0.114])
    assert torch.equal(result[:, 0], result[:, 1]) and torch.equal(result[:, 0], result[:, 2])
    assert (result[0, 0] - luma).abs().max() <= 0.51


def test_standardized_tiles_have_mean_0_and_std_1(images):
    result = shuffle_tiles(images, **labels(), tile=4, **PIXELS | {"standardize": True})
    assert result.mean((2, 3)).abs().max() < 1e-5
    assert (result.std((2, 3), correction=0) - 1).abs().max() < 1e-5
    flat = shuffle_tiles(torch.full_like(images, 7), **labels(), tile=4, **PIXELS | {"standardize": True})
    assert torch.equal(flat, torch.zeros_like(flat))


def test_compiles(images):
    def call(batch):
        return shuffle_tiles(batch, **labels(), tile=3, **PIXELS)

    assert torch.equal(torch.compile(call, fullgraph=True, backend="aot_eager")(images), call(images))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("permutations", {"permutations": torch.zeros(1, 0, dtype=torch.int64)}),
        ("permutations", {"permutations": torch.zeros(1, 4)}),
        ("corners", {"corners": CORNERS[:, :3]}),
        ("shifts", {"shifts": torch.zeros(1, 2, 2, dtype=torch.int64)}),
        ("grays", {"grays": torch.zeros(2, dtype=torch.int64)}),
        ("tile", {"tile": 9}),
        ("standardize", {"standardize": True, "dtype": torch.uint8}),
    ],
)
def test_names_the_bad_argument(images, name, change):
    with pytest.raises(ValueError, match=f"^{name}: got .*; expected "):
        shuffle_tiles(**{"images": images, **labels(), "tile": 4, **PIXELS, **change})
