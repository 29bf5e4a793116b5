"""Tensors as the kernels take and return them."""

import numpy as np
import torch

from kernels import buffer_pool

FAR = 2**40  # pixels: no image reaches so far, and sums of such coordinates cannot overflow
BIT_DTYPES = {torch.bfloat16: torch.int16, torch.float16: torch.int16}  # what CPU loops take 16-bit floats for


def allocate(images: torch.Tensor, shape: tuple[int, ...], dtype: torch.dtype, channels_last: bool) -> torch.Tensor:
    """Returns an uninitialized output tensor on the images' device.

    Args:
        images: The tensor whose device is used; a fake or traced one gives such an output.
        shape: [n, c, h, w].
        dtype: Of the output.
        channels_last: Whether the channels of a pixel lie together in memory, instead of NCHW order.

    Returns:
        [n, c, h, w] of `dtype`; on a CPU, large outputs take memory of earlier ones (see `buffer_pool`).
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    if type(images) is torch.Tensor and images.device.type == "cpu":  # neither fake nor traced
        return buffer_pool.empty(shape, dtype, layout)
    return torch.empty(shape, dtype=dtype, device=images.device, memory_format=layout)


def as_flat_array(tensor: torch.Tensor) -> np.ndarray:
    """Returns the memory of a dense CPU tensor as a 1-D array (16-bit floats as int16), shared with it."""
    return tensor.as_strided((tensor.numel(),), (1,)).view(BIT_DTYPES.get(tensor.dtype, tensor.dtype)).numpy()


def as_int64_array(labels: torch.Tensor) -> np.ndarray:
    """Returns integer labels as a contiguous int64 array: one type, so that a CPU loop compiles once."""
    return labels.to(torch.int64).contiguous().numpy()


def as_coordinates(labels: torch.Tensor) -> torch.Tensor:
    """Returns integer coordinates as int64, each clamped to -FAR..FAR pixels."""
    return labels.to(torch.int64).clamp(-FAR, FAR)


def as_triton_int(labels: torch.Tensor) -> torch.Tensor:
    """Returns integer labels as a Triton kernel can load them: contiguous, bool as uint8."""
    labels = labels.contiguous()
    return labels.view(torch.uint8) if labels.dtype == torch.bool else labels
