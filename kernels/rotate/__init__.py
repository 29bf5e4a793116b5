"""Crop, flip, turn by quarter turns and normalize: rotation prediction in one launch."""

import functools
from collections.abc import Callable, Sequence

import torch

from kernels import checks, registry, tensors
from kernels.rotate import cases, cpu_loop, reference, triton_kernel


def _for_one_rotation(implementation: Callable) -> Callable:
    """Gives an implementation the arguments of `rotate_op`."""

    def run(images, rotations, flips, offsets, size, mean, std, dtype, channels_last):
        return implementation(images, rotations, flips, offsets, False, size, mean, std, dtype, channels_last)

    return run


def _for_all_rotations(implementation: Callable) -> Callable:
    """Gives an implementation the arguments of `rotate_all_op`; what it gets as rotations is not used."""

    def run(images, flips, offsets, size, mean, std, dtype, channels_last):
        return implementation(images, flips, flips, offsets, True, size, mean, std, dtype, channels_last)

    return run


@torch.library.custom_op("tilespin::rotate", mutates_args=())
def rotate_op(
    images: torch.Tensor,
    rotations: torch.Tensor,
    flips: torch.Tensor,
    offsets: torch.Tensor,
    size: int,
    mean: list[float],
    std: list[float],
    dtype: torch.dtype,
    channels_last: bool,
) -> torch.Tensor:
    """Runs `rotate` on the device of the images, with arguments that are checked already."""
    run = _for_one_rotation(registry.choose_implementation(triton_kernel.launch, cpu_loop.run, images))
    return run(images, rotations, flips, offsets, size, mean, std, dtype, channels_last)


@rotate_op.register_fake
def _(images, rotations, flips, offsets, size, mean, std, dtype, channels_last):
    return tensors.allocate(images, (images.shape[0], images.shape[3], size, size), dtype, channels_last)


@torch.library.custom_op("tilespin::rotate_all", mutates_args=())
def rotate_all_op(
    images: torch.Tensor,
    flips: torch.Tensor,
    offsets: torch.Tensor,
    size: int,
    mean: list[float],
    std: list[float],
    dtype: torch.dtype,
    channels_last: bool,
) -> torch.Tensor:
    """Runs `rotate_all` on the device of the images, with arguments that are checked already."""
    run = _for_all_rotations(registry.choose_implementation(triton_kernel.launch, cpu_loop.run, images))
    return run(images, flips, offsets, size, mean, std, dtype, channels_last)


@rotate_all_op.register_fake
def _(images, flips, offsets, size, mean, std, dtype, channels_last):
    return tensors.allocate(images, (4 * images.shape[0], images.shape[3], size, size), dtype, channels_last)


def rotate(
    images: torch.Tensor,
    rotations: torch.Tensor,
    flips: torch.Tensor,
    offsets: torch.Tensor,
    *,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
) -> torch.Tensor:
    """Cuts a window from each image, flips it, turns it by quarter turns, and normalizes it.

    Source: RotNet (Gidaris et al. 2018, arXiv:1803.07728).

    Args:
        images: uint8 [b, h, w, c], c is 1 or 3; any strides.
        rotations: [b] integers; rotations & 3 quarter turns counterclockwise, as `torch.rot90` over (height, width),
            after the flip.
        flips: [b] integers; where not 0, the window is mirrored left-right.
        offsets: [b, 2] integers; the window's top left (y, x) in pixels, clamped so that it lies in the image.
        size: The side of the window, in pixels; at most min(h, w).
        mean: c numbers in pixel units (0..255).
        std: c numbers > 0 in pixel units.
        dtype: Of the result: uint8, float32, bfloat16 or float16.
        channels_last: Whether the result is in channels_last instead of NCHW memory order.

    Returns:
        [b, c, size, size] of `dtype`: the pixels as uint8, or (pixel - mean) * (1 / std), computed in float32 and then
        rounded.

    Raises:
        ValueError: If an argument has another type, shape, device or range.
    """
    checks.check_windows(images, size, flips, offsets)
    means, stds = checks.check_output(images.shape[3], mean, std, dtype)
    checks.check_integers("rotations", rotations, (images.shape[0],), images.device)
    return rotate_op(images, rotations, flips, offsets, size, means, stds, dtype, channels_last)


def rotate_all(
    images: torch.Tensor,
    flips: torch.Tensor,
    offsets: torch.Tensor,
    *,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
) -> torch.Tensor:
    """Cuts a window from each image, flips it, and gives it in all four rotations, normalized.

    Source: RotNet (Gidaris et al. 2018, arXiv:1803.07728).

    Args:
        images: uint8 [b, h, w, c], c is 1 or 3; any strides.
        flips: [b] integers; where not 0, the window is mirrored left-right.
        offsets: [b, 2] integers; the window's top left (y, x) in pixels, clamped so that it lies in the image.
        size: The side of the window, in pixels; at most min(h, w).
        mean: c numbers in pixel units (0..255).
        std: c numbers > 0 in pixel units.
        dtype: Of the result: uint8, float32, bfloat16 or float16.
        channels_last: Whether the result is in channels_last instead of NCHW memory order.

    Returns:
        [4 * b, c, size, size] of `dtype`: row 4 * i + k is what `rotate` makes of image i with k quarter turns.

    Raises:
        ValueError: If an argument has another type, shape, device or range.
    """
    checks.check_windows(images, size, flips, offsets)
    means, stds = checks.check_output(images.shape[3], mean, std, dtype)
    return rotate_all_op(images, flips, offsets, size, means, stds, dtype, channels_last)


KERNELS = tuple(
    registry.Kernel(
        name,
        op,
        form(reference.compute),
        form(triton_kernel.launch),
        form(cpu_loop.run),
        examples,
        (triton_kernel.TUNABLES[every],),
        functools.partial(cases.builds, every),
    )
    for name, op, form, examples, every in (
        ("rotate", rotate_op, _for_one_rotation, cases.examples, False),
        ("rotate_all", rotate_all_op, _for_all_rotations, cases.examples_of_all, True),
    )
)
