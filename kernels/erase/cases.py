"""Example arguments of the erased windows, and what to compile ahead of time."""

from collections.abc import Iterator

import torch

from kernels import registry
from kernels.erase.triton_kernel import TUNABLE, erase_kernel
from kernels.examples import POINTERS, SCALES, image_batches, integers


def examples(generator: torch.Generator) -> Iterator[tuple]:
    """Generates example arguments on the CPU, drawn from the generator.

    Yields:
        Positional arguments of `erase_op`.
    """
    for index, (images, size, mean, std, dtype, last) in enumerate(image_batches(generator)):
        b, g, n = images.shape[0], (0, 2, 5, 3)[index % 4], (2, 0, 1)[index % 3]
        boxes = integers(generator, (b, n, 4), -2, max(size, 3), torch.int16)
        field, levels = integers(generator, (b, g, g), 0, 256, torch.uint8), integers(generator, (b,), 0, 257)
        flips, offsets = integers(generator, (b,), 0, 2, torch.bool), integers(generator, (b, 2), -3, 12)
        yield images, flips, offsets, boxes, field, levels, size, mean, std, dtype, last
    # more boxes than an int32 has bits
    images, zero = integers(generator, (2, 18, 19, 1), 0, 256, torch.uint8), torch.zeros(2, 2).int()
    boxes = torch.cat([integers(generator, (2, 70, 2), 0, 17), integers(generator, (2, 70, 2), 1, 3)], 2)
    yield (
        images,
        zero[:, 0],
        zero,
        boxes,
        torch.zeros(2, 0, 0).int(),
        zero[:, 0],
        17,
        [99.0],
        [64.0],
        torch.float32,
        False,
    )


def builds() -> Iterator[registry.Build]:
    """Lists what to compile ahead of time.

    Yields:
        Builds of `erase_kernel`.
    """
    pointers = dict.fromkeys(("flips", "offsets", "boxes", "levels"), "*i64")
    for dtype, g, last, budget in (
        (torch.float32, 0, False, 23),
        (torch.bfloat16, 8, False, 32),
        (torch.bfloat16, 8, True, 46),
        (torch.float32, 8, True, 47),
    ):  # elements are counted once, though the masked and the whole image are both written
        config = TUNABLE.choose(224, dtype, last)
        results = {"masked": POINTERS[dtype], "target": POINTERS[dtype], "mask": "*u8"}
        yield registry.Build(
            erase_kernel,
            {"images": "*u8", **pointers, "field": "*u8", **results, **SCALES, "h": "i32", "w": "i32"},
            {"SIZE": 224, "C": 3, "N": 2, "G": g, "LAST": last, "SIDE": config["SIDE"]},
            TUNABLE,
            warps=config["num_warps"],
            elements=3 * config["SIDE"] ** 2,
            budget=budget,
        )
