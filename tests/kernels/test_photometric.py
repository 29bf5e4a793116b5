"""What `photometric` promises, on small images."""

import itertools

import pytest
import torch
from torchvision.transforms.v2 import functional

from kernels.photometric import photometric

PIXELS = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
ORDERS = torch.tensor(list(itertools.permutations(range(4))))
ADJUST = (
    functional.adjust_brightness,
    functional.adjust_contrast,
    functional.adjust_saturation,
    functional.adjust_hue,
)


def drawn(b, h, w, seed=0):
    """Images with plain, saturated and gray parts, and factors as a strong color jitter draws them."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (b, h, w, 3), dtype=torch.uint8, generator=generator)
    images[:, : h // 4] = images[:, : h // 4, :, :1]
    images[:, h // 4 : h // 2] = (images[:, h // 4 : h // 2] > 127) * torch.tensor(255, dtype=torch.uint8)
    factors = torch.rand(b, 4, generator=generator) * 1.8 + 0.1
    factors[:, 3] = torch.rand(b, generator=generator) - 0.5
    return images, factors


def torchvision(image, factors, order, gray):
    image = image.permute(2, 0, 1).float() / 255
    for operation in order.tolist():
        image = ADJUST[operation](image, factors[operation].item())
    return functional.rgb_to_grayscale(image, 3) if gray else image


@pytest.mark.parametrize("seed", range(4))
def test_is_torchvisions_color_jitter(seed):
    images, factors = drawn(24, 30, 27, seed)
    grays = torch.arange(24) % 5 == 4
    result = photometric(images, factors, ORDERS, grays, **PIXELS)
    expected = torch.stack([torchvision(*row) for row in zip(images, factors, ORDERS, grays, strict=True)])
    assert (result / 255 - expected).abs().max() < 2e-5


def test_neutral_factors_give_the_pixels():
    images, _ = drawn(24, 9, 7)
    result = photometric(images, torch.tensor([[1.0, 1, 1, 0]]).expand(24, 4), ORDERS, torch.zeros(24).int(), **PIXELS)
    assert torch.equal(result, images.permute(0, 3, 1, 2).float())


def test_a_full_turn_of_hue_and_shifts_past_half_a_turn():
    images, _ = drawn(3, 16, 16)
    factors = torch.tensor([[1.0, 1, 1, 0.5], [1, 1, 1, -0.5], [1, 1, 1, 7.0]])
    pixels = images[:1].expand(3, -1, -1, -1)
    result = photometric(pixels, factors, ORDERS[:3], torch.zeros(3).int(), **PIXELS)
    assert (result - result[:1]).abs().max() < 1e-3


def test_mean_is_that_of_the_whole_image():
    """Contrast 0 leaves nothing but the mean, to 2^-13 of a gray level, also of an image of many programs."""
    images, _ = drawn(2, 150, 140)
    factors = torch.tensor([[1.0, 0, 1, 0]] * 2)
    result = photometric(images, factors, ORDERS[:2], torch.zeros(2).int(), **PIXELS)
    gray = images.double() @ torch.tensor([0.2989, 0.587, 0.114], dtype=torch.float64)
    assert (result.double() - gray.mean((1, 2)).view(2, 1, 1, 1)).abs().max() < 2**-12
    assert bool((result == result[:, :1, :1, :1]).all())


def test_normalizes_and_rounds():
    images, factors = drawn(24, 10, 11)
    arguments = images, factors, ORDERS, torch.zeros(24).int()
    values = photometric(*arguments, **PIXELS)
    mean, std = torch.tensor([10.0, 20, 30]), torch.tensor([2.0, 4, 8])
    result = photometric(*arguments, mean=mean.tolist(), std=std.tolist(), channels_last=True)
    assert torch.equal(result, (values - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(photometric(*arguments, **PIXELS, dtype=torch.uint8), (values + 0.5).floor().to(torch.uint8))


@pytest.mark.slow
def test_compiles():
    images, factors = drawn(24, 8, 9)

    def call(batch):
        return photometric(batch, factors, ORDERS, torch.ones(24).int(), **PIXELS)

    assert torch.equal(torch.compile(call, fullgraph=True, backend="aot_eager")(images), call(images))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("images", {"images": torch.zeros(2, 8, 8, 3)}),
        ("images", {"images": torch.zeros(2, 8, 8, 1, dtype=torch.uint8)}),
        ("factors", {"factors": torch.ones(2, 4, dtype=torch.float64)}),
        ("factors", {"factors": torch.ones(2, 3)}),
        ("factors", {"factors": torch.ones(2, 4, device="meta")}),
        ("order", {"order": torch.zeros(2, 4)}),
        ("order", {"order": torch.zeros(2, 3, dtype=torch.int64)}),
        ("grays", {"grays": torch.zeros(3, dtype=torch.int64)}),
        ("mean", {"mean": (1.0,)}),
        ("std", {"std": (1.0, 0.0, 1.0)}),
        ("dtype", {"dtype": torch.float64}),
    ],
)
def test_names_the_bad_argument(name, change):
    images = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
    labels = {"factors": torch.ones(2, 4), "order": ORDERS[:2], "grays": torch.zeros(2, dtype=torch.int64)}
    with pytest.raises(ValueError, match=f"^{name}: got .*; expected "):
        photometric(**{"images": images, **labels, **PIXELS, **change})
