"""What `erase` promises, on small images."""

import pytest
import torch

from kernels.erase import erase

SCALE = {"mean": (100.4, 110.5, 120.6), "std": (50.0,) * 3}
NO_BOXES, NO_FIELD = torch.zeros(2, 0, 4, dtype=torch.int64), torch.zeros(2, 0, 0, dtype=torch.uint8)


def labels(**change):
    none = torch.zeros(2, dtype=torch.int64)
    offsets = torch.zeros(2, 2, dtype=torch.int64)
    return {"flips": none, "offsets": offsets, "boxes": NO_BOXES, "field": NO_FIELD, "levels": none, **change}


@pytest.fixture
def images():
    return torch.randint(0, 256, (2, 34, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_erases_the_boxes_of_the_output_window(images):
    boxes = torch.tensor([[[4, 6, 3, 5]], [[-2, 30, 4, 99]]])
    masked, target, mask = erase(images, **labels(boxes=boxes, flips=torch.tensor([1, 0])), size=32, **SCALE)
    expected = torch.zeros(2, 1, 32, 32, dtype=torch.uint8)
    expected[0, 0, 4:7, 6:11] = 1
    expected[1, 0, :2, 30:] = 1
    assert torch.equal(mask, expected)
    assert torch.equal(masked, torch.where(mask != 0, 0.0, target))
    pixels = images[0, :32, :32].flip(1).permute(2, 0, 1).float()
    assert torch.allclose(target[0], (pixels - torch.tensor(SCALE["mean"]).view(3, 1, 1)) / 50, atol=1e-6)


def test_uint8_is_filled_with_the_rounded_mean(images):
    boxes = torch.tensor([[[0, 0, 1, 1]]] * 2)
    masked, target, _ = erase(images, **labels(boxes=boxes), size=32, dtype=torch.uint8, **SCALE)
    assert masked[:, :, 0, 0].tolist() == [[100, 110, 121]] * 2
    assert torch.equal(target, images[:, :32].permute(0, 3, 1, 2))


def test_field_erases_the_share_below_its_level(images):
    ramp = torch.tensor([[0, 255], [0, 255]], dtype=torch.uint8).expand(2, 2, 2)
    mask = erase(images, **labels(field=ramp, levels=torch.tensor([64, 128])), size=32, **SCALE)[2].float()
    assert mask.mean((1, 2, 3)).tolist() == [0.25, 0.5]
    assert bool((mask[0, 0, :, :8] == 1).all())


@pytest.mark.parametrize(("level", "share"), [(0, 0.0), (256, 1.0)])
def test_extreme_levels(images, level, share):
    field = torch.randint(0, 256, (2, 5, 5), dtype=torch.uint8)
    mask = erase(images, **labels(field=field, levels=torch.full((2,), level)), size=31, **SCALE)[2]
    assert mask.float().mean() == share


def test_compiles(images):
    def call(batch):
        return erase(batch, **labels(boxes=torch.tensor([[[1, 1, 2, 2]]] * 2)), size=8, **SCALE)

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    assert all(map(torch.equal, compiled(images), call(images)))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("boxes", {"boxes": torch.zeros(2, 4, dtype=torch.int64)}),
        ("boxes", {"boxes": torch.zeros(2, 1, 3, dtype=torch.int64)}),
        ("field", {"field": torch.zeros(2, 1, 1, dtype=torch.uint8)}),
        ("field", {"field": torch.zeros(2, 3, 2, dtype=torch.uint8)}),
        ("levels", {"levels": torch.zeros(2)}),
        ("flips", {"flips": torch.zeros(1, dtype=torch.int64)}),
        ("offsets", {"offsets": torch.zeros(2, 3, dtype=torch.int64)}),
        ("size", {"size": 33}),
    ],
)
def test_names_the_bad_argument(images, name, change):
    with pytest.raises(ValueError, match=f"^{name}: got .*; expected "):
        erase(**{"images": images, **labels(), "size": 8, **SCALE, **change})
