"""Equivariance of encoders whose answer is known, and the parameters that its transforms are drawn with."""

import colorsys
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.frozen_encoders import Constant, Noise, frozen, small_source, unlabeled
from torch import nn
from torch.nn import functional as F

import ssl_core.encoders.build as encoders
from kernels.random import RandomBits
from ssl_core.data.dataset import Arrays
from ssl_core.evaluation.known_transforms import BLUR, DRAWN, FIXED, recolored
from ssl_core.evaluation.protocols.equivariance import Equivariance, relative_error
from ssl_core.evaluation.transforms import TRANSFORMS, blurred, rotated

CONFIG = Equivariance.Config(images=250, held_out=50, test=100)
PERMUTED = ("flip", "rotation", "rotation/90", "rotation/180", "rotation/270", "jigsaw")


def noisy(train: int = 300, test: int = 120) -> dict:
    """Random images in 8 x 8 cells, 16 px a side: all directions of raw pixels vary alike."""
    random = np.random.default_rng(0)
    parts = {}
    for name, count in (("train", train), ("test", test)):
        cells = random.integers(60, 180, (count, 8, 8, 3)).astype(np.uint8)
        parts[name] = Arrays(cells.repeat(2, 1).repeat(2, 2), np.zeros(count, np.int64))
    return parts


GIVEN = replace(small_source(), **noisy())


def run(encoder: nn.Module, given=GIVEN, **config) -> tuple[dict[str, float], str]:
    result = Equivariance().run(frozen(encoder, given), replace(CONFIG, **config), 0)
    return result.numbers, " ".join(result.notes)


class Stay(nn.Module):
    """The mean color and contrast: invariant to all that moves pixels and changes none."""

    def forward(self, x):
        return [torch.cat([(x.double() ** k).mean((2, 3), keepdim=True) for k in (1, 2)], 1).float()]


class Wander(nn.Module):
    """The mean color, each time with a step that no one can foretell."""

    def __init__(self, step: float):
        super().__init__()
        self.step, self.generator = step, torch.Generator().manual_seed(0)

    def forward(self, x):
        color = x.mean((2, 3), keepdim=True)
        return [color + self.step * torch.randn(color.shape, generator=self.generator)]


def test_raw_pixels_go_where_a_linear_map_says():
    """Turns, mirroring and the order of tiles permute their cells, less brightness shrinks them; hue is not linear."""
    numbers, _ = run(encoders.build("raw-pixels", 16, 0))
    assert all(numbers[name] < 0.03 for name in PERMUTED), numbers
    assert numbers["color/brightness"] < 0.01 and numbers["color/hue"] > 0.1
    assert numbers["rotation"] == pytest.approx(np.mean([numbers[f"rotation/{d}"] for d in (90, 180, 270)]))


def test_an_invariant_encoder_has_no_error_where_it_stays():
    numbers, notes = run(Stay())
    assert not any(name in numbers for name in PERMUTED) and "rotation/90 at stage 1" in notes
    assert numbers["color/brightness"] < 0.1 and numbers["r2/rotation"] < 0.1


def test_a_collapsed_encoder_has_no_error_and_reads_nothing():
    numbers, notes = run(Constant())
    assert set(numbers) == {f"r2/{name}{of}" for name in DRAWN for of in ("", "/stage1")}
    assert all(value <= 1e-6 for value in numbers.values()) and all(name in notes for name in TRANSFORMS)


def test_features_that_move_at_random_are_not_foretold():
    """Neither a place of their own, nor a step from where they are, nor, of a wide step, the way back to the mean."""
    for encoder, low in ((Noise(16), 0.9), (Wander(0.01), 0.9), (Wander(0.1), 0.7)):
        numbers, notes = run(encoder)
        assert all(low < numbers[name] < 1.1 for name in PERMUTED) and not notes
        assert numbers["r2/rotation"] < 0.1


def test_brightness_is_read_off_the_mean_color():
    """Of images that are equally bright, that of the changed one is linear in the factor."""
    even = {}
    for name, of in noisy().items():
        images = of.images - of.images.mean((1, 2, 3), keepdims=True) + 120
        even[name] = Arrays(images.clip(0, 255).astype(np.uint8), of.labels)
    numbers, _ = run(Stay(), replace(small_source(), **even))
    assert numbers["r2/brightness"] > 0.98 and numbers["r2/brightness"] == numbers["r2/brightness/stage1"]


def test_the_error_by_hand():
    x, y = torch.tensor([[0.0, 0], [2, 0]]), torch.tensor([[1.0, 0], [5, 0]])
    mean = torch.tensor([3.0, 0])
    assert relative_error(y, x, y, mean) == 0 and relative_error(mean.expand(2, 2), x, y, mean) == 4 / 4
    assert relative_error(torch.tensor([[1.0, 1], [5, 1]]), x, y, mean) == pytest.approx(1 / 4)
    assert relative_error(x, x, x + 1e-3, mean) is None


def test_the_parameters_are_those_of_the_images():
    images = torch.from_numpy(GIVEN.test.images[:6])
    bits = RandomBits(torch.arange(6), torch.zeros(6, dtype=torch.int64), 3)
    made = {name: draw(images, bits) for name, draw in DRAWN.items()}
    for (y, x, high, wide), image, crop in zip((16 * made["crop"][1]).long().tolist(), images, made["crop"][0]):
        box = image[y : y + high, x : x + wide].permute(2, 0, 1)[None].float()
        expected = F.interpolate(box, (16, 16), mode="bilinear", antialias=True)[0].permute(1, 2, 0)
        assert (crop.float() - expected).abs().max() < 1
    factors = made["brightness"][1][:, :, None, None]
    assert (made["brightness"][0].float() - (images * factors).clamp(0, 255)).abs().max() <= 0.51
    turns = torch.atan2(*made["rotation"][1].T).div(torch.pi / 2).round().long() % 4
    assert len(turns.unique()) > 1 and torch.equal(made["rotation"][0], rotated(images, turns))
    shares = made["blur"][1]
    assert torch.equal(made["blur"][0][2], blurred(images[2:3], float(shares[2]))[0])
    assert BLUR[0] <= shares.min() < shares.max() <= BLUR[1] and len(shares.unique()) == 6
    shifts = (torch.atan2(*made["hue"][1].T) / (2 * torch.pi)).tolist()
    for image, changed, shift in zip(images, made["hue"][0], shifts):
        before, after = (colorsys.rgb_to_hsv(*(of[0, 0] / 255).tolist()) for of in (image, changed))
        assert (after[0] - before[0] - shift + 0.5) % 1 - 0.5 == pytest.approx(0, abs=0.02)


def test_fixed_transforms_are_the_same_for_every_image():
    """And have the kinds and strengths of those that distances are measured under."""
    images = torch.from_numpy(GIVEN.test.images[:1]).repeat(3, 1, 1, 1)
    bits = RandomBits(torch.arange(3), torch.zeros(3, dtype=torch.int64), 0)
    assert list(FIXED) == list(TRANSFORMS)
    for kinds in FIXED.values():
        for view in kinds.values():
            made = view(images, bits)
            assert made.shape == images.shape and torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])
            assert not torch.equal(made, images)
    assert torch.equal(recolored(images), images)
    swapped = FIXED["jigsaw"]["2x2"](images, bits)[0]
    assert torch.equal(swapped[:8, :8], images[0, 8:, 8:]) and torch.equal(swapped[8:, :8], images[0, :8, 8:])


@pytest.mark.slow
def test_no_labels_are_needed_and_a_seed_decides_what_is_drawn():
    bare = unlabeled(small_source())
    one, again, other = (
        Equivariance().run(frozen(encoders.build("convnet", 16, 0), bare), CONFIG, seed).numbers for seed in (0, 0, 1)
    )
    assert one == again and one["r2/crop"] != other["r2/crop"] and one["rotation"] == other["rotation"]
    assert {"rotation/stage1", "rotation/stage3", "r2/hue/stage3"} <= set(one)
