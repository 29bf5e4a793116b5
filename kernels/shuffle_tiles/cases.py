"""Example arguments of the shuffled tiles, and what to compile ahead of time."""

from collections.abc import Iterator

import torch

from kernels import registry
from kernels.examples import POINTERS, SCALES, image_batches, integers
from kernels.shuffle_tiles.triton_kernel import TUNABLE, shuffle_kernel
from kernels.triton_tiles import num_blocks


def examples(generator: torch.Generator) -> Iterator[tuple]:
    """Generates example arguments on the CPU, drawn from the generator.

    Yields:
        Positional arguments of `shuffle_tiles_op`.
    """
    for index, (images, tile, mean, std, dtype, last) in enumerate(image_batches(generator)):
        b, c, t = images.shape[0], images.shape[3], 1 + index % 4
        permutations = torch.rand(b, t, generator=generator).argsort(1).to(torch.int32 if last else torch.int64)
        corners, shifts = (
            integers(generator, (b, t, 2), -4, 14),
            integers(generator, (b, c, 2), -2, 3, torch.int8),
        )
        grays = integers(generator, (b,), 0, 2, torch.bool if last else torch.uint8)
        for standardize in (False, True)[: 1 if dtype == torch.uint8 else 2]:
            yield images, permutations, corners, shifts, grays, tile, standardize, mean, std, dtype, last


def builds() -> Iterator[registry.Build]:
    """Lists what to compile ahead of time.

    Yields:
        Builds of `shuffle_kernel`.
    """
    pointers = dict.fromkeys(("permutations", "corners", "shifts", "grays"), "*i64")
    for tile, dtype, standardize, last, budget in (
        (64, torch.bfloat16, True, False, 22),
        (64, torch.float32, False, False, 16),
        (14, torch.float32, True, False, 60),
        (64, torch.bfloat16, True, True, 33),
        (512, torch.bfloat16, True, False, 48),
    ):
        config = TUNABLE.choose(tile, dtype, last)
        yield registry.Build(
            shuffle_kernel,
            {
                "images": "*u8",
                **pointers,
                "out": POINTERS[dtype],
                **SCALES,
                "h": "i32",
                "w": "i32",
                "tiles": "i32",
            },
            {"TILE": tile, "C": 3, "STANDARDIZE": standardize, "LAST": last, "BLOCK": config["BLOCK"]},
            TUNABLE,
            warps=config["num_warps"],
            elements=3 * tile**2 // num_blocks(tile, config["BLOCK"]),
            budget=budget,
            vectorized=tile % 8 == 0,  # else rows do not start at multiples of sixteen bytes
        )
