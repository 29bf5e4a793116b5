"""Where images lie among bytes, and what regions and boxes are allowed."""

import functools
import math
from collections.abc import Sequence

import torch

from kernels import checks, tensors
from kernels.cpu_jit import jit_loop
from kernels.crop_flip.cpu_loop import clip_axis

# Sides up to 2^14 keep positions in int32; (longest side)^2 <= 2^20 * size keeps the weights' sums under 2^22, so
# that a line's weighted sum fits int32 and a box's, under 2^52, is an exact integer in int64 and in float64.
LONGEST, STEEPEST = 2**14, 2**20


def equal_regions(b: int, h: int, w: int, c: int, *, device: torch.device | str) -> torch.Tensor:
    """Returns the regions of images of one size that lie one behind the other.

    Args:
        b: How many images.
        h: Their height, in pixels.
        w: Their width, in pixels.
        c: Their channels.
        device: Of the result.

    Returns:
        int64 [b, 3], (offset, h, w).
    """
    starts = torch.arange(b, device=device) * (h * w * c)
    return torch.stack([starts, torch.full_like(starts, h), torch.full_like(starts, w)], 1)


known_regions = functools.lru_cache(maxsize=64)(equal_regions)  # kept, for tensors that nobody changes


@jit_loop
def _first_fault(regions, boxes, count, c, limit):
    """Returns (image, longest side of its box) if the first fault is a box that is too long, (image, 0) if it is a
    region that is not inside `count` bytes, or (-1, 0)."""
    for image in range(len(regions)):
        start, h, w = regions[image]
        # first without a product that could overflow
        if start < 0 or h < 1 or w < 1 or h > (2**31 - 1) // c // w or start > count - h * w * c:
            return image, 0
        longest = max(
            clip_axis(boxes[image, 0], boxes[image, 2], h)[1], clip_axis(boxes[image, 1], boxes[image, 3], w)[1]
        )
        if longest > limit:
            return image, longest
    return -1, 0


def check_images(images: torch.Tensor, regions: torch.Tensor | None) -> tuple[int, int, int | None]:
    """Checks where the images are, but not the values of regions.

    Args:
        images: The argument of that name.
        regions: The argument of that name.

    Returns:
        How many images there are; their longest side in pixels, or 1 where regions say it; and their channels, or None
        where the length of mean says it.

    Raises:
        ValueError: If one has another type, shape or device.
    """
    if regions is None:
        checks.check_images(images)
        return images.shape[0], max(images.shape[1:3]), images.shape[3]
    checks.check_bytes("images", images)
    checks.check_tensor("regions", regions)
    checks.check_integers("regions", regions, (*regions.shape[:1], 3), images.device)
    return regions.shape[0], 1, None


def check_counts(sizes: Sequence[int], counts: Sequence[int]) -> tuple[list[int], list[int]]:
    """Checks how many crops of each size there are to be, but not the sizes.

    Args:
        sizes: The sides of the outputs, in pixels.
        counts: How many crops of each to make of an image.

    Returns:
        Both as lists.

    Raises:
        ValueError: If there is no size, or not one int >= 0 for each.
    """
    if not isinstance(sizes, Sequence) or not sizes:
        raise ValueError(f"sizes: got {sizes!r}; expected one int or more, in a sequence")
    fitting = isinstance(counts, Sequence) and len(counts) == len(sizes)
    if not fitting or not all(isinstance(count, int) and count >= 0 for count in counts):
        raise ValueError(f"counts: got {counts!r}; expected an int >= 0 for each of the {len(sizes)} sizes")
    return list(sizes), list(counts)


def check_size(name: str, size: int, images: torch.Tensor, longest: int) -> None:
    """Checks that the sums of the weights are exact.

    Args:
        name: Of the argument, for the message.
        size: The side of the output, in pixels.
        images: The images, for the message.
        longest: The longest side of an image, in pixels.

    Raises:
        ValueError: If the size is out of range, or too small for that side.
    """
    if not isinstance(size, int) or not 1 <= size <= LONGEST or longest > LONGEST or longest**2 > STEEPEST * size:
        raise ValueError(
            f"{name}: got {size!r} for images {list(images.shape)}; expected an int in 1..{LONGEST}, sides <="
            f" {LONGEST}, (longest side)^2 <= {STEEPEST} * size"
        )


def check_regions(images: torch.Tensor, regions: torch.Tensor, boxes: torch.Tensor, size: int, c: int) -> None:
    """Checks the values of regions and boxes, on the CPU.

    Args:
        images: uint8 [n].
        regions: [b, 3] integers, (offset, h, w).
        boxes: [b, 4] integers, (y, x, height, width) in pixels.
        size: The side of the output, in pixels.
        c: Channels of the images.

    Raises:
        ValueError: If a region is not inside images, or the part of a box inside its image has a side that is too long
            for exact sums.
    """
    limit = min(LONGEST, math.isqrt(STEEPEST * size))
    numbers = tensors.as_int64_array(regions), tensors.as_int64_array(tensors.as_coordinates(boxes))
    image, longest = _first_fault(*numbers, images.numel(), c, limit)
    if longest:
        raise ValueError(
            f"boxes: got {boxes[image].tolist()}, {longest} pixels long in its image; expected at most {limit},"
            f" as size is {size}"
        )
    if image >= 0:
        raise ValueError(
            f"regions: got {regions[image].tolist()}; expected (offset, h, w), offset >= 0, h, w >= 1,"
            f" h*w*c < 2^31, offset + h*w*c <= {images.numel()}, the bytes of images"
        )


def as_bytes(
    images: torch.Tensor,
    regions: torch.Tensor | None,
    boxes: torch.Tensor,
    sizes: Sequence[int],
    counts: Sequence[int],
    c: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns images with their regions, and checks the values of regions that are given.

    Args:
        images: uint8 [b, h, w, c], or uint8 [n] with regions.
        regions: [b, 3] integers, (offset, h, w), or None.
        boxes: [b, crops of an image, 4] integers, (y, x, height, width) in pixels.
        sizes: The sides of the outputs, in pixels.
        counts: How many crops of each there are of an image.
        c: Channels of the images.

    Returns:
        uint8 [n], and integers [b, 3].

    Raises:
        ValueError: As for `check_regions`; on a GPU and under torch.compile values are not looked at.
    """
    concrete = type(images) is torch.Tensor and not torch.compiler.is_compiling()
    if regions is None:
        # a CUDA graph reads memory of its own, which nothing takes out of a cache
        cached = concrete and not (images.is_cuda and torch.cuda.is_current_stream_capturing())
        regions = (known_regions if cached else equal_regions)(*images.shape, device=images.device)
        return images.reshape(-1), regions
    if concrete and images.device.type == "cpu":
        for size, count, cut in zip(sizes, counts, boxes.split(counts, 1)):
            check_regions(images, regions.repeat_interleave(count, 0), cut.flatten(0, 1), size, c)
    return images, regions
