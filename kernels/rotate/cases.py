"""Example arguments of the rotations, and what to compile ahead of time."""

from collections.abc import Iterator

import torch

from kernels import registry
from kernels.examples import POINTERS, SCALES, image_batches, integers
from kernels.rotate.triton_kernel import TUNABLES, rotate_kernel


def examples(generator: torch.Generator) -> Iterator[tuple]:
    """Generates example arguments on the CPU, drawn from the generator.

    Yields:
        Positional arguments of `rotate_op`.
    """
    for images, size, mean, std, dtype, last in image_batches(generator):
        rotations = integers(generator, (images.shape[0],), -5, 6, torch.int64 if last else torch.int8)
        yield images, rotations, *_window_labels(generator, images, last), size, mean, std, dtype, last


def examples_of_all(generator: torch.Generator) -> Iterator[tuple]:
    """Generates example arguments on the CPU, drawn from the generator.

    Yields:
        Positional arguments of `rotate_all_op`.
    """
    for images, size, mean, std, dtype, last in image_batches(generator):
        yield images, *_window_labels(generator, images, last), size, mean, std, dtype, last


def _window_labels(generator: torch.Generator, images: torch.Tensor, last: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws the flips and offsets."""
    flips = integers(generator, (images.shape[0],), 0, 2, torch.bool if last else torch.uint8)
    return flips, integers(generator, (images.shape[0], 2), -3, 12)


def builds(every: bool) -> Iterator[registry.Build]:
    """Lists what to compile ahead of time.

    Args:
        every: Whether for all four rotations, not for one.

    Yields:
        Builds of `rotate_kernel`.
    """
    labels = {"rotations": "*i64", "flips": "*i64", "offsets": "*i64", "h": "i32", "w": "i32"}
    for dtype, last, budget in (
        (torch.float32, False, 40 if every else 13),  # the loop over rotations may get unrolled
        (torch.bfloat16, False, 13),
        (torch.uint8, False, 24 if every else 12),
        (torch.bfloat16, True, 21),
        (torch.float32, True, 22),
    ):
        config = TUNABLES[every].choose(224, dtype, last)
        yield registry.Build(
            rotate_kernel,
            {"images": "*u8", "out": POINTERS[dtype], **labels, **SCALES},
            {"SIZE": 224, "C": 3, "ALL_ROTATIONS": every, "LAST": last, "SIDE": config["SIDE"]},
            TUNABLES[every],
            warps=config["num_warps"],
            elements=3 * config["SIDE"] ** 2,
            budget=budget,
        )
