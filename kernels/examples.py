"""Example arguments and compilation types from which each kernel makes its examples and builds."""

from collections.abc import Iterator
from itertools import chain

import torch

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
POINTERS = {torch.uint8: "*u8", torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}
SCALES = {name: "fp32" for name in ("m0", "m1", "m2", "s0", "s1", "s2")}

# batch, height, width, channels, output size, dtype, channels_last
_CASES = (
    (1, 5, 7, 3, 5, torch.uint8, False),
    (0, 6, 6, 3, 4, torch.float32, False),
    (2, 9, 8, 1, 3, torch.float32, True),
    (3, 34, 40, 3, 33, torch.bfloat16, False),
    (2, 45, 46, 3, 44, torch.float16, True),
    (5, 16, 12, 3, 8, torch.float32, False),
    (0, 8, 8, 1, 8, torch.uint8, True),
    (4, 10, 11, 3, 7, torch.float32, True),
    (2, 7, 6, 1, 1, torch.float16, False),
    (2, 12, 12, 3, 12, torch.uint8, True),
    (3, 12, 14, 1, 6, torch.bfloat16, True),
)
_DRAWN = 3  # further batches, of a shape that the generator chooses


def integers(
    generator: torch.Generator, shape: tuple[int, ...], low: int, high: int, dtype: torch.dtype = torch.int64
) -> torch.Tensor:
    """Draws integers.

    Args:
        generator: On the CPU.
        shape: Of the result.
        low: The smallest that there may be.
        high: One more than the largest.
        dtype: Of the result.

    Returns:
        A tensor on the CPU, uniform in low..high-1.
    """
    return torch.randint(low, high, shape, generator=generator).to(dtype)


def image_batches(generator: torch.Generator) -> Iterator[tuple]:
    """Generates batches of odd shapes, of 0 and of 1, in every layout.

    Yields:
        (images, size, mean, std, dtype, channels_last): uint8 [b, h, w, c] on the CPU and what is to be made of them.
    """
    drawn = (_random_case(generator) for _ in range(_DRAWN))
    for index, (b, h, w, c, size, dtype, last) in enumerate(chain(_CASES, drawn)):
        kind = index % 3
        if kind == 0:
            images = integers(generator, (b, h, w, c), 0, 256, torch.uint8)
        elif kind == 1:
            images = integers(generator, (b, w, h, c), 0, 256, torch.uint8).transpose(1, 2)
        else:
            images = integers(generator, (b, h, 2 * w, c), 0, 256, torch.uint8)[:, :, 1::2]
        yield images, size, list(MEAN[:c]), list(STD[:c]), dtype, last


def _random_case(generator: torch.Generator) -> tuple:
    def below(high: int) -> int:
        return int(torch.randint(high, (), generator=generator))

    b, h, w, c = below(7), 8 + below(57), 8 + below(57), 1 + 2 * below(2)
    return b, h, w, c, 1 + below(min(h, w)), tuple(POINTERS)[below(4)], bool(below(2))
