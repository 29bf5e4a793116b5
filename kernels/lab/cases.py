"""Example arguments of lightness and color bins, and what to compile ahead of time."""

from collections.abc import Iterator

import torch

from kernels import normalize, registry
from kernels.examples import MEAN, POINTERS, SCALES, STD, image_batches, integers
from kernels.lab.triton_kernel import CELLS, LIGHTNESS, bins_kernel, lightness_kernel

LARGEST = 12  # px, of the examples' cells: the interpreter of Triton goes through a cell pixel by pixel


def examples(generator: torch.Generator) -> Iterator[tuple]:
    """Generates example arguments on the CPU, drawn from the generator.

    Yields:
        Positional arguments of `lab_op`.
    """
    for images, size, mean, std, dtype, last in image_batches(generator):
        if images.shape[3] != 3:
            continue
        sides = [side for side in range(1, min(size, LARGEST) + 1) if size % side == 0]
        cell = sides[int(integers(generator, (), 0, len(sides)))]
        yield images, *_window_labels(generator, len(images), last), size, cell, mean, std, dtype, last
    # more than one program of cells; dark colors, where f is a line
    images = integers(generator, (2, 40, 39, 3), 0, 30, torch.uint8)
    yield images, *_window_labels(generator, 2, True), 36, 3, list(MEAN), list(STD), torch.float32, False


def _window_labels(generator: torch.Generator, b: int, last: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws the flips and offsets."""
    flips = integers(generator, (b,), 0, 2, torch.bool if last else torch.uint8)
    return flips, integers(generator, (b, 2), -3, 12)


def builds() -> Iterator[registry.Build]:
    """Lists what to compile ahead of time.

    Yields:
        Builds of both kernels.
    """
    window = {"images": "*u8", "flips": "*i64", "offsets": "*i64", "linear": "*i32", "h": "i32", "w": "i32"}
    config = CELLS.choose(224, torch.bfloat16, False)
    yield registry.Build(
        bins_kernel,
        {**window, "root": "*fp32", "numbers": "*i32", "bins": "*i64"},
        {"SIZE": 224, "CELL": 4, "SHARE": normalize.float32(1 / 16), "CELLS": config["CELLS"]},
        CELLS,
        warps=config["num_warps"],
        elements=config["CELLS"],
        budget=225,
        vectorized=False,
    )
    for dtype, last, budget in (
        (torch.float32, False, 18),
        (torch.bfloat16, False, 18),
        (torch.uint8, False, 16),
        (torch.bfloat16, True, 27),
        (torch.float32, True, 27),
    ):
        config = LIGHTNESS.choose(224, dtype, last)
        yield registry.Build(
            lightness_kernel,
            {**window, "lightness": "*fp32", "out": POINTERS[dtype], **SCALES},
            {"SIZE": 224, "LAST": last, "SIDE": config["SIDE"]},
            LIGHTNESS,
            warps=config["num_warps"],
            elements=3 * config["SIDE"] ** 2,
            budget=budget,
        )
