"""Crop a box, resample it to a square with antialiasing, flip and normalize: random resized crops in one launch."""

from collections.abc import Sequence

import torch

from kernels import checks, registry, tensors
from kernels.crop_flip import cases, cpu_loop, reference, triton_kernel
from kernels.crop_flip.regions import check_regions, check_size, equal_regions, known_regions


@torch.library.custom_op("tilespin::crop_flip", mutates_args=())
def crop_flip_op(
    images: torch.Tensor,
    regions: torch.Tensor,
    flips: torch.Tensor,
    boxes: torch.Tensor,
    size: int,
    mean: list[float],
    std: list[float],
    dtype: torch.dtype,
    channels_last: bool,
) -> torch.Tensor:
    """Runs `crop_flip` on the device of the images, with regions, and with arguments that are checked already."""
    run = registry.choose_implementation(triton_kernel.launch, cpu_loop.run, images)
    return run(images, regions, flips, boxes, size, mean, std, dtype, channels_last)


@crop_flip_op.register_fake
def _(images, regions, flips, boxes, size, mean, std, dtype, channels_last):
    return tensors.allocate(images, (regions.shape[0], len(mean), size, size), dtype, channels_last)


def crop_flip(
    images: torch.Tensor,
    flips: torch.Tensor,
    boxes: torch.Tensor,
    *,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
    regions: torch.Tensor | None = None,
) -> torch.Tensor:
    """Cuts a box from each image, resamples it to size x size with antialiasing, flips and normalizes it.

    The resampling is that of `torch.nn.functional.interpolate(mode="bilinear", antialias=True)`: an output is the mean
    of the box's pixels under a triangle centered on it, which reaches max(1, side / size) pixels each way. Weights are
    exact integers, so the mean is exact up to float32's rounding (2^-16 of a gray level); a box of size x size gives
    its very pixels.
    Source: random resized crops (Szegedy et al. 2015, arXiv:1409.4842).

    Args:
        images: uint8 [b, h, w, c], c is 1 or 3; any strides. With regions, uint8 [n]: bytes among which images of any
            sizes lie.
        flips: [b] integers; where not 0, the result is mirrored left-right.
        boxes: [b, 4] integers; (y, x, height, width) in pixels, of which the part inside the image counts, at least one
            pixel a side.
        size: The side of the result, in pixels. size, h, w <= 16384 and max(h, w)^2 <= 2^20 * size; with regions, this
            holds not for h and w but for the sides of the box's part inside the image.
        mean: c numbers in pixel units (0..255).
        std: c numbers > 0 in pixel units.
        dtype: Of the result: uint8, float32, bfloat16 or float16.
        channels_last: Whether the result is in channels_last instead of NCHW memory order.
        regions: [b, 3] integers; (offset, h, w) of each image, whose h*w*c bytes, c being the length of mean, start at
            images[offset]. In any order, the same ones again, too.

    Returns:
        [b, c, size, size] of `dtype`: the values rounded to uint8, halves up, or (value - mean) * (1 / std), computed
        in float32 and then rounded.

    Raises:
        ValueError: If an argument has another type, shape, device or range. On a GPU and under torch.compile the values
            of regions, and of boxes with them, are not looked at: there the caller answers for offset >= 0, h, w >= 1,
            h*w*c < 2^31, offset + h*w*c <= n and the sides of the boxes.
    """
    if regions is None:
        checks.check_images(images)
        b, c = images.shape[0], images.shape[3]
    else:
        checks.check_bytes("images", images)
        checks.check_tensor("regions", regions)
        checks.check_integers("regions", regions, (*regions.shape[:1], 3), images.device)
        b, c = regions.shape[0], None
    checks.check_integers("flips", flips, (b,), images.device)
    checks.check_integers("boxes", boxes, (b, 4), images.device)
    check_size(images, size, max(images.shape[1:3]) if regions is None else 1)
    means, stds = checks.check_output(c, mean, std, dtype)
    concrete = type(images) is torch.Tensor and not torch.compiler.is_compiling()
    if regions is None:
        regions = (known_regions if concrete else equal_regions)(*images.shape, device=images.device)
        images = images.reshape(-1)
    elif concrete and images.device.type == "cpu":
        check_regions(images, regions, boxes, size, len(means))
    return crop_flip_op(images, regions, flips, boxes, size, means, stds, dtype, channels_last)


KERNELS = (
    registry.Kernel(
        "crop_flip",
        crop_flip_op,
        reference.compute,
        triton_kernel.launch,
        cpu_loop.run,
        cases.examples,
        tuple(cases.builds()),
    ),
)
