"""Example arguments of the random words, and what to compile ahead of time."""

from collections.abc import Iterator

import torch

from kernels import registry
from kernels.examples import integers
from kernels.random.triton_kernel import TUNABLE, draw_kernel


def examples(generator: torch.Generator) -> Iterator[tuple]:
    """Generates example arguments on the CPU, drawn from the generator.

    Yields:
        Positional arguments of `draw_op`.
    """
    for b, count, seed, stream in ((0, 3, 0, 0), (1, 1, 0, 0), (5, 4, 2**32 - 1, 7), (7, 10, 1, 2**32 - 1)):
        ids = integers(generator, (b,), -(2**62), 2**62)
        yield ids, integers(generator, (b,), 0, 100, torch.int32), seed, stream, count
        yield ids[:0].repeat(2), ids[:0], seed, stream, 0


def builds() -> Iterator[registry.Build]:
    """Lists what to compile ahead of time.

    Yields:
        The build of `draw_kernel`.
    """
    pointers = {"ids": "*i64", "epochs": "*i64", "out": "*i64"}
    config = TUNABLE.choose(16, torch.int64, False)
    yield registry.Build(
        draw_kernel,
        {**pointers, "seed": "i64", "stream": "i64", "total": "i32", "blocks": "i32", "count": "i32"},
        {"BLOCK": config["BLOCK"]},
        TUNABLE,
        warps=config["num_warps"],
        elements=4 * config["BLOCK"],
        budget=125,
        vectorized=False,
    )
