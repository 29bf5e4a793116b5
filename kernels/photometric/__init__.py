"""Brightness, contrast, saturation, hue, gray and normalize: color jitter in two launches."""

from collections.abc import Sequence

import torch

from kernels import checks, registry, tensors
from kernels.photometric import cases, cpu_loop, reference, triton_kernel


@torch.library.custom_op("tilespin::photometric", mutates_args=())
def photometric_op(
    images: torch.Tensor,
    factors: torch.Tensor,
    order: torch.Tensor,
    grays: torch.Tensor,
    mean: list[float],
    std: list[float],
    dtype: torch.dtype,
    channels_last: bool,
) -> torch.Tensor:
    """Runs `photometric` on the device of the images, with arguments that are checked already."""
    run = registry.choose_implementation(triton_kernel.launch, cpu_loop.run, images)
    return run(images, factors, order, grays, mean, std, dtype, channels_last)


@photometric_op.register_fake
def _(images, factors, order, grays, mean, std, dtype, channels_last):
    b, h, w, c = images.shape
    return tensors.allocate(images, (b, c, h, w), dtype, channels_last)


def photometric(
    images: torch.Tensor,
    factors: torch.Tensor,
    order: torch.Tensor,
    grays: torch.Tensor,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
) -> torch.Tensor:
    """Changes the brightness, contrast, saturation and hue of each image, grays some, and normalizes them.

    The arithmetic is that of torchvision's `adjust_*` and `rgb_to_grayscale` on float images, in 0..255; the mean that
    contrast blends with is that of gray levels rounded to 1/4096.
    Source: color distortion as in SimCLR (Chen et al. 2020, arXiv:2002.05709).

    Args:
        images: uint8 [b, h, w, 3]; any strides.
        factors: float32 [b, 4]; for brightness, contrast and saturation a factor >= 0 (1 changes nothing), for hue a
            shift in turns, clamped to -0.5..0.5 (0 changes nothing). The values are not checked.
        order: [b, 4] integers, modulo 4 a permutation: the order of the four for that image, 0 brightness, 1 contrast,
            2 saturation, 3 hue. This is not checked; an order that is no permutation gives undefined pixels.
        grays: [b] integers; where not 0, the image is made gray at the end.
        mean: 3 numbers in pixel units (0..255).
        std: 3 numbers > 0 in pixel units.
        dtype: Of the result: uint8, float32, bfloat16 or float16.
        channels_last: Whether the result is in channels_last instead of NCHW memory order.

    Returns:
        [b, 3, h, w] of `dtype`: the values rounded to uint8, halves up, or (value - mean) * (1 / std), computed in
        float32 and then rounded.

    Raises:
        ValueError: If an argument has another type, shape, device or range.
    """
    checks.check_images(images)
    b, c, device = images.shape[0], images.shape[3], images.device
    if c != 3:
        raise ValueError(f"images: got {list(images.shape)}; expected 3 channels")
    checks.check_tensor("factors", factors)
    if factors.dtype != torch.float32 or tuple(factors.shape) != (b, 4) or factors.device != device:
        raise ValueError(
            f"factors: got {factors.dtype} {list(factors.shape)} on {factors.device};"
            f" expected torch.float32 [{b}, 4] on {device}"
        )
    checks.check_integers("order", order, (b, 4), device)
    checks.check_integers("grays", grays, (b,), device)
    means, stds = checks.check_output(c, mean, std, dtype)
    return photometric_op(images, factors, order, grays, means, stds, dtype, channels_last)


KERNELS = (
    registry.Kernel(
        "photometric",
        photometric_op,
        reference.compute,
        triton_kernel.launch,
        cpu_loop.run,
        cases.examples,
        (triton_kernel.SUMS, triton_kernel.PIXELS),
        cases.builds,
    ),
)
