"""Normalization of pixels, as every kernel does it."""

import functools
from collections.abc import Sequence

import numpy as np
import torch

from kernels.tensors import BIT_DTYPES


def float32(value: float) -> float:
    """Returns the value rounded to float32."""
    return float(np.float32(value))


@functools.lru_cache(maxsize=64)
def _scales(mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(float32(m) for m in mean), tuple(float32(1 / s) for s in std)


def scales(mean: Sequence[float], std: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns (mean, 1 / std), each number rounded to float32."""
    return _scales(tuple(mean), tuple(std))


def scalars(mean: Sequence[float], std: Sequence[float]) -> tuple[float, ...]:
    """Returns (m0, m1, m2, s0, s1, s2), the scales as a Triton kernel takes them; one channel fills all three."""
    means, inverses = scales(mean, std)
    return (*(means * 3)[:3], *(inverses * 3)[:3])


def normalize(pixels: torch.Tensor, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype) -> torch.Tensor:
    """Normalizes pixels in plain torch: the specification of what every kernel does.

    Args:
        pixels: [..., c, h, w], uint8 or float32.
        mean: c numbers in pixel units (0..255).
        std: c numbers in pixel units.
        dtype: Of the result: uint8, float32, bfloat16 or float16.

    Returns:
        (float32(pixel) - mean) * (1 / std), in float32, then rounded to `dtype`; for uint8, the pixels as they are.
    """
    if dtype == torch.uint8:
        return pixels
    means, inverses = (
        torch.tensor(v, dtype=torch.float32, device=pixels.device).view(-1, 1, 1) for v in scales(mean, std)
    )
    return ((pixels.to(torch.float32) - means) * inverses).to(dtype)


@functools.lru_cache(maxsize=64)
def _table(mean: tuple[float, ...], std: tuple[float, ...], dtype: torch.dtype) -> np.ndarray:
    every = torch.arange(256, dtype=torch.uint8, device="cpu").expand(len(mean), 1, 256)
    values = normalize(every, mean, std, dtype).reshape(len(mean), 256).contiguous()
    return values.view(BIT_DTYPES.get(dtype, dtype)).numpy()


def table(mean: Sequence[float], std: Sequence[float], dtype: torch.dtype) -> np.ndarray:
    """Returns the normalized value of every pixel value, for a CPU loop to look up.

    Args:
        mean: c numbers in pixel units (0..255).
        std: c numbers in pixel units.
        dtype: Of the values.

    Returns:
        [c, 256] of `dtype`, 16-bit floats as int16. It is cached: not to be written to.
    """
    return _table(tuple(mean), tuple(std), dtype)
