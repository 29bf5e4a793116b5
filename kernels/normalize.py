"""Normalization of pixels, as every kernel does it."""

import functools

import numpy as np
import torch

from kernels.tensors import _BITS


def float32(value: float) -> float:
    """The value rounded to float32."""
    return float(np.float32(value))


@functools.lru_cache(maxsize=64)
def _scales(mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(float32(m) for m in mean), tuple(float32(1 / s) for s in std)


def scales(mean: list[float], std: list[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, 1/std), each rounded to float32."""
    return _scales(tuple(mean), tuple(std))


def scalars(mean: list[float], std: list[float]) -> tuple[float, ...]:
    """(m0, m1, m2, s0, s1, s2): the scales as a Triton kernel takes them; one channel fills all three."""
    means, inverses = scales(mean, std)
    return (*(means * 3)[:3], *(inverses * 3)[:3])


def normalize(pixels: torch.Tensor, mean: list[float], std: list[float], dtype: torch.dtype) -> torch.Tensor:
    """The reference: uint8 [n, c, h, w] to dtype; to a float, (float32(pixel) - mean[c]) * inv_std[c]."""
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
    return values.view(_BITS.get(dtype, dtype)).numpy()


def table(mean: list[float], std: list[float], dtype: torch.dtype) -> np.ndarray:
    """[c, 256]: the output of each pixel value, for a CPU loop to look up (16-bit floats as int16)."""
    return _table(tuple(mean), tuple(std), dtype)
