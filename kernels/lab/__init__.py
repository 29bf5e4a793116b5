"""Crop, flip, and split into lightness and color: colorization in two launches."""

from collections.abc import Sequence

import torch

from kernels import checks, registry, tensors
from kernels.lab import cases, cpu_loop, reference, tables, triton_kernel


@torch.library.custom_op("tilespin::lab", mutates_args=())
def lab_op(
    images: torch.Tensor,
    flips: torch.Tensor,
    offsets: torch.Tensor,
    size: int,
    cell: int,
    mean: list[float],
    std: list[float],
    dtype: torch.dtype,
    channels_last: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Runs `lab` on the device of the images, with arguments that are checked already."""
    run = registry.choose_implementation(triton_kernel.launch, cpu_loop.run, images)
    return run(images, flips, offsets, size, cell, mean, std, dtype, channels_last)


@lab_op.register_fake
def _(images, flips, offsets, size, cell, mean, std, dtype, channels_last):
    b, n = images.shape[0], size // cell
    lightness = tensors.allocate(images, (b, 3, size, size), dtype, channels_last)
    return lightness, images.new_empty((b, n, n), dtype=torch.int64)


def lab(
    images: torch.Tensor,
    flips: torch.Tensor,
    offsets: torch.Tensor,
    *,
    size: int,
    cell: int,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cuts a window from each image, flips it, and splits it into lightness and the colors of its cells.

    sRGB becomes CIELAB for the white D65. The color of a cell is that of the mean of its pixels' linear light; its bin
    is the nearest of `bin_centers`. With the cube root from a table, a* is right to 0.003, b* to 0.001 and the
    lightness to 0.002 of 255.
    Source: Colorful Image Colorization (Zhang et al. 2016, arXiv:1603.08511).

    Args:
        images: uint8 [b, h, w, 3]; any strides.
        flips: [b] integers; where not 0, the window is mirrored left-right.
        offsets: [b, 2] integers; the window's top left (y, x) in pixels, clamped so that it lies in the image.
        size: The side of the window, in pixels; at most min(h, w).
        cell: The side of a cell, in pixels; it must divide `size`.
        mean: 3 numbers in pixel units (0..255).
        std: 3 numbers > 0 in pixel units.
        dtype: Of the lightness: uint8, float32, bfloat16 or float16.
        channels_last: Whether the lightness is in channels_last instead of NCHW memory order.

    Returns:
        [b, 3, size, size] of `dtype`, CIELAB's L* of each pixel times 2.55, so 0..255, alike in all channels: rounded
        to uint8, halves up, or (value - mean) * (1 / std), computed in float32 and then rounded; and
        [b, size / cell, size / cell] int64, the bin of each cell's color.

    Raises:
        ValueError: If an argument has another type, shape, device or range.
    """
    checks.check_windows(images, size, flips, offsets)
    if images.shape[3] != 3:
        raise ValueError(f"images: got {list(images.shape)}; expected 3 channels")
    if not isinstance(cell, int) or not 1 <= cell <= size or size % cell:
        raise ValueError(f"cell: got {cell!r}; expected an int that divides {size}, the side of the window")
    means, stds = checks.check_output(3, mean, std, dtype)
    return lab_op(images, flips, offsets, size, cell, means, stds, dtype, channels_last)


def bin_centers() -> torch.Tensor:
    """Returns the colors that the bins stand for: float32 [261, 2], a* and b*, by a* and then b*.

    They are the centers of the squares of side 10, at multiples of 10, that hold at least one of the 2^24 colors of
    sRGB: the nearest bin of each is that of its square. The paper counts 313, by a rule that it does not state; on this
    grid at least 52 of those would hold no color.
    """
    return torch.from_numpy(tables.CENTERS).float()


KERNELS = (
    registry.Kernel(
        "lab",
        lab_op,
        reference.compute,
        triton_kernel.launch,
        cpu_loop.run,
        cases.examples,
        (triton_kernel.LIGHTNESS, triton_kernel.CELLS),
        cases.builds,
    ),
)
