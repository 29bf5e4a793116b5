"""Crop, flip, erase and normalize: a context encoder's masked input, target and mask in one launch."""

from collections.abc import Sequence

import torch

from kernels import checks, registry
from kernels.erase import cases, cpu_loop, outputs, reference, triton_kernel


@torch.library.custom_op("tilespin::erase", mutates_args=())
def erase_op(
    images: torch.Tensor,
    flips: torch.Tensor,
    offsets: torch.Tensor,
    boxes: torch.Tensor,
    field: torch.Tensor,
    levels: torch.Tensor,
    size: int,
    mean: list[float],
    std: list[float],
    dtype: torch.dtype,
    channels_last: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Runs `erase` on the device of the images, with arguments that are checked already."""
    run = registry.choose_implementation(triton_kernel.launch, cpu_loop.run, images)
    return run(images, flips, offsets, boxes, field, levels, size, mean, std, dtype, channels_last)


@erase_op.register_fake
def _(images, flips, offsets, boxes, field, levels, size, mean, std, dtype, channels_last):
    return outputs.allocate(images, size, dtype, channels_last)


def erase(
    images: torch.Tensor,
    flips: torch.Tensor,
    offsets: torch.Tensor,
    boxes: torch.Tensor,
    field: torch.Tensor,
    levels: torch.Tensor,
    *,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cuts a window from each image, flips it, normalizes it, and erases part of a copy.

    A pixel is erased if a box or the field says so.
    Source: context encoders and their mean fill (Pathak et al. 2016, arXiv:1604.07379).

    Args:
        images: uint8 [b, h, w, c], c is 1 or 3; any strides.
        flips: [b] integers; where not 0, the window is mirrored left-right.
        offsets: [b, 2] integers; the window's top left (y, x) in pixels, clamped so that it lies in the image.
        boxes: [b, n, 4] integers; (y, x, height, width) in pixels of the output window, n may be 0.
        field: [b, g, g] integers in 0..255 (not checked), g is 0 for no field, or >= 2. A pixel is erased where the
            field, upsampled bilinearly with aligned corners in integers (8-bit fractions), is below the level.
        levels: [b] integers in 0..256 (not checked); of each image.
        size: The side of the window, in pixels; at most min(h, w), and g * size < 2^23.
        mean: c numbers in pixel units (0..255).
        std: c numbers > 0 in pixel units.
        dtype: Of masked and target: uint8, float32, bfloat16 or float16.
        channels_last: Whether the results are in channels_last instead of NCHW memory order.

    Returns:
        (masked, target, mask). target: [b, c, size, size] of `dtype`, the window's pixels as uint8, or
        (pixel - mean) * (1 / std), computed in float32 and then rounded. masked: the same, where erased 0, which is the
        mean, or for uint8 round(mean) in 0..255. mask: uint8 [b, 1, size, size], 1 where erased.

    Raises:
        ValueError: If an argument has another type, shape, device or range.
    """
    checks.check_windows(images, size, flips, offsets)
    b, device = images.shape[0], images.device
    checks.check_tensor("boxes", boxes)
    if boxes.dim() != 3:
        raise ValueError(f"boxes: got {list(boxes.shape)}; expected [{b}, n, 4]")
    checks.check_integers("boxes", boxes, (b, boxes.shape[1], 4), device)
    checks.check_tensor("field", field)
    if field.dim() != 3 or field.shape[1] == 1 or field.shape[1] * size >= 2**23:
        raise ValueError(f"field: got {list(field.shape)}; expected [{b}, g, g], g 0 or >= 2, g * size < 2^23")
    checks.check_integers("field", field, (b, field.shape[1], field.shape[1]), device)
    checks.check_integers("levels", levels, (b,), device)
    means, stds = checks.check_output(images.shape[3], mean, std, dtype)
    return erase_op(images, flips, offsets, boxes, field, levels, size, means, stds, dtype, channels_last)


KERNELS = (
    registry.Kernel(
        "erase",
        erase_op,
        reference.compute,
        triton_kernel.launch,
        cpu_loop.run,
        cases.examples,
        (triton_kernel.TUNABLE,),
        cases.builds,
    ),
)
