"""Example arguments of the color jitter, and what to compile ahead of time."""

from collections.abc import Iterator

import torch

from kernels import registry
from kernels.examples import MEAN, POINTERS, SCALES, STD, image_batches, integers
from kernels.photometric.reference import STEPS
from kernels.photometric.triton_kernel import PIXELS, SPAN, SUMS, brightness_sums_kernel, photometric_kernel


def examples(generator: torch.Generator) -> Iterator[tuple]:
    """Generates example arguments on the CPU, drawn from the generator.

    Yields:
        Positional arguments of `photometric_op`.
    """
    for images, _, mean, std, dtype, last in image_batches(generator):
        b, c = images.shape[0], images.shape[3]
        if c != 3:
            continue
        for grayed in (2, 1):
            factors = torch.rand(b, 4, generator=generator) * 2
            factors[:, 3] = factors[:, 3] / 2 - 0.5
            order = torch.rand(b, 4, generator=generator).argsort(1).to(torch.int32 if last else torch.int64)
            grays = integers(generator, (b,), 0, grayed, torch.bool if last else torch.uint8)
            yield images, factors, order, grays, mean, std, dtype, last
    # more than one program sums
    images = integers(generator, (1, 100, 90, 3), 0, 256, torch.uint8)
    factors, order = torch.tensor([[0.7, 1.6, 1.3, -0.2]]), torch.tensor([[3, 2, 0, 1]])
    yield images, factors, order, torch.zeros(1).int(), list(MEAN), list(STD), torch.float32, False


def builds() -> Iterator[registry.Build]:
    """Lists what to compile ahead of time.

    Yields:
        Builds of both kernels.
    """
    pointers = {"images": "*u8", "factors": "*fp32", "order": "*i64", "sums": "*i64"}
    config = SUMS.choose(224, torch.bfloat16, False)
    yield registry.Build(
        brightness_sums_kernel,
        pointers,
        {"N": 224 * 224, "SPAN": SPAN, "BLOCK": config["BLOCK"], "STEPS": STEPS},
        SUMS,
        warps=config["num_warps"],
        elements=config["BLOCK"],
        budget=165,
        vectorized=False,
    )
    for dtype, last, budget in (
        (torch.float32, False, 53),
        (torch.bfloat16, False, 53),
        (torch.uint8, False, 53),
        (torch.bfloat16, True, 66),
        (torch.float32, True, 66),
    ):
        config = PIXELS.choose(224, dtype, last)
        yield registry.Build(
            photometric_kernel,
            {**pointers, "grays": "*i64", "out": POINTERS[dtype], **SCALES},
            {
                "N": 224 * 224,
                "SPAN": SPAN,
                "STEPS": STEPS,
                "LANES": 8,
                "LAST": last,
                "BLOCK": config["BLOCK"],
            },
            PIXELS,
            warps=config["num_warps"],
            elements=3 * config["BLOCK"],
            budget=budget,
        )
