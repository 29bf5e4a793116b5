"""Crop boxes, resample them to squares with antialiasing, flip and normalize: random resized crops in one launch."""

from collections.abc import Callable, Sequence

import torch

from kernels import checks, registry, tensors
from kernels.crop_flip import cases, cpu_loop, reference, triton_kernel
from kernels.crop_flip.regions import as_bytes, check_counts, check_images, check_size


def _for_one_size(implementation: Callable) -> Callable:
    """Gives an implementation of `multi_crop_op` the arguments of `crop_flip_op`."""

    def run(images, regions, flips, boxes, size, *output):
        return implementation(images, regions, flips[:, None], boxes[:, None], [size], [1], *output)[0]

    return run


def _for_each_size(implementation: Callable) -> Callable:
    """Gives an implementation of `crop_flip_op` the arguments of `multi_crop_op`: it runs once for each size."""

    def run(images, regions, flips, boxes, sizes, counts, *output):
        results = []
        for size, count, *labels in zip(sizes, counts, flips.split(counts, 1), boxes.split(counts, 1)):
            rows = (label.flatten(0, 1) for label in labels)
            results.append(implementation(images, regions.repeat_interleave(count, 0), *rows, size, *output))
        return results

    return run


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
    run = registry.choose_implementation(_for_one_size(triton_kernel.launch), cpu_loop.run, images)
    return run(images, regions, flips, boxes, size, mean, std, dtype, channels_last)


@crop_flip_op.register_fake
def _(images, regions, flips, boxes, size, mean, std, dtype, channels_last):
    return tensors.allocate(images, (regions.shape[0], len(mean), size, size), dtype, channels_last)


@torch.library.custom_op("tilespin::multi_crop", mutates_args=())
def multi_crop_op(
    images: torch.Tensor,
    regions: torch.Tensor,
    flips: torch.Tensor,
    boxes: torch.Tensor,
    sizes: list[int],
    counts: list[int],
    mean: list[float],
    std: list[float],
    dtype: torch.dtype,
    channels_last: bool,
) -> list[torch.Tensor]:
    """Runs `multi_crop` on the device of the images, with regions, and with arguments that are checked already."""
    run = registry.choose_implementation(triton_kernel.launch, _for_each_size(cpu_loop.run), images)
    return run(images, regions, flips, boxes, sizes, counts, mean, std, dtype, channels_last)


@multi_crop_op.register_fake
def _(images, regions, flips, boxes, sizes, counts, mean, std, dtype, channels_last):
    shapes = [(regions.shape[0] * count, len(mean), size, size) for size, count in zip(sizes, counts)]
    return [tensors.allocate(images, shape, dtype, channels_last) for shape in shapes]


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
    b, longest, c = check_images(images, regions)
    checks.check_integers("flips", flips, (b,), images.device)
    checks.check_integers("boxes", boxes, (b, 4), images.device)
    check_size("size", size, images, longest)
    means, stds = checks.check_output(c, mean, std, dtype)
    images, regions = as_bytes(images, regions, boxes[:, None], [size], [1], len(means))
    return crop_flip_op(images, regions, flips, boxes, size, means, stds, dtype, channels_last)


def multi_crop(
    images: torch.Tensor,
    flips: torch.Tensor,
    boxes: torch.Tensor,
    *,
    sizes: Sequence[int],
    counts: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
    regions: torch.Tensor | None = None,
) -> tuple[torch.Tensor, ...]:
    """Cuts several boxes from each image and makes crops of several sizes of them, each as `crop_flip` does.

    Source: multi-crop (Caron et al. 2020, arXiv:2006.09882).

    Args:
        images: uint8 [b, h, w, c], c is 1 or 3; any strides. With regions, uint8 [n], as for `crop_flip`.
        flips: [b, n] integers, n being the sum of counts; where not 0, the crop is mirrored left-right.
        boxes: [b, n, 4] integers; (y, x, height, width) in pixels as for `crop_flip`, of each image first those of the
            first size, then those of the second and so on.
        sizes: The sides of the results, in pixels; each within the limits of `crop_flip`.
        counts: How many crops of each size to make of an image, as many numbers >= 0 as there are sizes.
        mean: c numbers in pixel units (0..255).
        std: c numbers > 0 in pixel units.
        dtype: Of the results: uint8, float32, bfloat16 or float16.
        channels_last: Whether the results are in channels_last instead of NCHW memory order.
        regions: [b, 3] integers; (offset, h, w) of each image, as for `crop_flip`.

    Returns:
        A tensor for each size, [b * count, c, size, size] of `dtype`: row count * i + j is the image i's j-th crop of
        that size.

    Raises:
        ValueError: If an argument has another type, shape, device or range, as far as `crop_flip` looks at them.
    """
    b, longest, c = check_images(images, regions)
    sizes, counts = check_counts(sizes, counts)
    checks.check_integers("flips", flips, (b, sum(counts)), images.device)
    checks.check_integers("boxes", boxes, (b, sum(counts), 4), images.device)
    for size in sizes:
        check_size("sizes", size, images, longest)
    means, stds = checks.check_output(c, mean, std, dtype)
    images, regions = as_bytes(images, regions, boxes, sizes, counts, len(means))
    return tuple(multi_crop_op(images, regions, flips, boxes, sizes, counts, means, stds, dtype, channels_last))


KERNELS = (
    registry.Kernel(
        "crop_flip",
        crop_flip_op,
        reference.compute,
        _for_one_size(triton_kernel.launch),
        cpu_loop.run,
        cases.examples,
        (triton_kernel.ONE_SIZE,),
        cases.builds,
    ),
    registry.Kernel(
        "multi_crop",
        multi_crop_op,
        _for_each_size(reference.compute),
        triton_kernel.launch,
        _for_each_size(cpu_loop.run),
        cases.examples_of_several,
        (triton_kernel.SEVERAL_SIZES,),
        cases.builds_of_several,
    ),
)
