"""Whatever the shapes, strides, integer types and labels: every CPU loop gives the reference's bits, and the kernels
keep what follows from their definitions without a reference."""

import pytest
import torch
from support.example_variants import example, several, vary

from kernels import registry
from kernels.crop_flip import crop_flip
from kernels.erase import erase
from kernels.photometric import photometric
from kernels.rotate import rotate
from kernels.shuffle_tiles import shuffle_tiles

hypothesis = pytest.importorskip("hypothesis")
# One seed for all of an example: choice by choice, hypothesis would repeat most of an example in the next.
given = hypothesis.given(random=hypothesis.strategies.randoms(use_true_random=True))
KERNELS = {kernel.name: kernel for kernel in registry.kernels()}


def settings(examples):
    return hypothesis.settings(derandomize=True, deadline=None, database=None, max_examples=examples)


def drawn(name, random, **change):
    return example(KERNELS[name], random) | change


def window(images, flips, offsets, size, mean, std, dtype, channels_last, **others):
    """The flipped, normalized window that most kernels start from."""
    options = {"size": size, "mean": mean, "std": std, "dtype": dtype, "channels_last": channels_last}
    return rotate(images, torch.zeros(len(images)).int(), flips, offsets, **options)


def equal(result, expected):
    return torch.equal(result, expected) and result.stride() == expected.stride()


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@settings(250)
@given
@pytest.mark.slow
def test_cpu_equals_reference(kernel, random):
    arguments = vary(kernel, random)
    results, expected = (several(run(*arguments.values())) for run in (kernel.cpu, kernel.reference))
    for result, wanted in zip(results, expected, strict=True):
        assert result.dtype == wanted.dtype and equal(result, wanted)


@settings(100)
@given
def test_turning_and_flipping_back_gives_the_window(random):
    arguments = drawn("rotate", random, dtype=torch.uint8)
    plain = rotate(**arguments | {"rotations": torch.zeros_like(arguments["rotations"])})
    for turned, k, row in zip(rotate(**arguments), arguments["rotations"].tolist(), plain, strict=True):
        assert torch.equal(turned.rot90(-k, (1, 2)), row)
    again = arguments | {"images": plain.permute(0, 2, 3, 1), "offsets": torch.zeros_like(arguments["offsets"])}
    assert equal(window(**again), window(**arguments | {"flips": torch.zeros_like(arguments["flips"])}))


@settings(100)
@given
def test_the_inverse_permutation_restores_the_tiles(random):
    arguments = drawn("shuffle_tiles", random)
    permutations = arguments["permutations"].long()
    tiles = shuffle_tiles(**arguments).unflatten(0, permutations.shape)
    restored = tiles[torch.arange(len(tiles))[:, None], permutations.argsort(1)].flatten(0, 1)
    identity = torch.arange(permutations.shape[1]).expand_as(permutations)
    assert torch.equal(restored, shuffle_tiles(**arguments | {"permutations": identity}))


@settings(100)
@given
def test_erased_pixels_are_the_fill_and_the_others_the_window(random):
    arguments = vary(KERNELS["erase"], random)
    masked, target, mask = erase(**arguments)
    assert equal(target, window(**arguments))
    assert set(mask.unique().tolist()) <= {0, 1}
    fill = torch.tensor(arguments["mean"]).round().clamp(0, 255) if target.dtype == torch.uint8 else torch.zeros(1)
    assert equal(masked, torch.where(mask.bool(), fill.to(target.dtype).view(-1, 1, 1), target))


@settings(100)
@given
def test_a_box_of_the_output_size_is_a_window(random):
    arguments = drawn("rotate", random)
    arguments.pop("rotations")
    offsets, size = arguments.pop("offsets"), arguments["size"]
    free = torch.tensor(arguments["images"].shape[1:3]) - size
    inside = torch.minimum(offsets.clamp(min=0), free)
    boxes = torch.cat([inside, torch.full_like(inside, size)], 1)
    assert equal(crop_flip(**arguments, boxes=boxes), window(**arguments, offsets=offsets))


@settings(100)
@given
def test_neutral_factors_only_normalize(random):
    arguments = drawn("photometric", random)
    side = min(arguments["images"].shape[1:3])
    images = arguments["images"] = arguments["images"][:, :side, :side]
    neutral = torch.tensor([[1.0, 1, 1, 0]]).expand(len(images), 4)
    none = torch.zeros_like(arguments["grays"])
    result = photometric(**arguments | {"factors": neutral, "grays": none})
    assert equal(result, window(**arguments, flips=none, offsets=torch.zeros(len(images), 2).int(), size=side))
