"""What every implementation of `erase` returns, and what it fills erased pixels with."""

from collections.abc import Sequence

import torch

from kernels import tensors


def allocate(
    images: torch.Tensor, size: int, dtype: torch.dtype, channels_last: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns the uninitialized outputs for images [b, h, w, c].

    Args:
        images: uint8 [b, h, w, c].
        size: The side of the windows, in pixels.
        dtype: Of the masked image and the target.
        channels_last: Whether the outputs are in channels_last instead of NCHW memory order.

    Returns:
        (masked, target, mask): twice [b, c, size, size] of `dtype`, and uint8 [b, 1, size, size].
    """
    b, _, _, c = images.shape
    masked, target = (tensors.allocate(images, (b, c, size, size), dtype, channels_last) for _ in range(2))
    return masked, target, tensors.allocate(images, (b, 1, size, size), torch.uint8, channels_last)


def fill_values(mean: Sequence[float], dtype: torch.dtype) -> list[int]:
    """Returns each channel's value where erased: its mean, which normalized is 0 and in uint8 is rounded to 0..255."""
    return [min(max(round(m), 0), 255) if dtype == torch.uint8 else 0 for m in mean]
