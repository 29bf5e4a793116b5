"""Where images lie among bytes, and what regions and boxes are allowed."""

import functools
import math

import torch

from kernels import tensors
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
    starts = torch.arange(b, device="cpu") * (h * w * c)
    return torch.stack([starts, torch.full_like(starts, h), torch.full_like(starts, w)], 1).to(device)


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


def check_size(images: torch.Tensor, size: int, longest: int) -> None:
    """Checks that the sums of the weights are exact.

    Args:
        images: The images, for the message.
        size: The side of the output, in pixels.
        longest: The longest side of an image, in pixels.

    Raises:
        ValueError: If the size is out of range, or too small for that side.
    """
    if not isinstance(size, int) or not 1 <= size <= LONGEST or longest > LONGEST or longest**2 > STEEPEST * size:
        raise ValueError(
            f"size: got {size!r} for images {list(images.shape)}; expected an int in 1..{LONGEST}, sides <= {LONGEST},"
            f" (longest side)^2 <= {STEEPEST} * size"
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
