"""The rotations on a CPU: a compiled loop over the outputs."""

import torch

from kernels import cpu_threads, tensors
from kernels.cpu_jit import jit_loop
from kernels.cpu_output import make_normalization, pack
from kernels.cpu_planes import scratch, transpose, unpack


@jit_loop
def rotate_rows(first, last, images, shape, rotations, flips, offsets, every, size, channels_last, normalization, out):
    """Computes the rows first..last-1 of out, a flat array.

    Args:
        first: The first row.
        last: The row behind the last.
        images: The bytes of uint8 [b, h, w, c].
        shape: (b, h, w, c).
        rotations: int64 [b]; not used if `every`.
        flips: int64 [b].
        offsets: int64 [b, 2].
        every: Whether a row is one of the four rotations of image row // 4.
        size: The side of the window, in pixels.
        channels_last: Whether out is in that memory order.
        normalization: A `Normalization`.
        out: The memory of [b, c, size, size] or, if `every`, [4 * b, c, size, size].
    """
    _, h, w, c = shape
    planes, rotated = scratch(c, size), scratch(c, size)
    for row in range(first, last):
        image = row // 4 if every else row
        rotation = row % 4 if every else rotations[row] & 3
        y = min(max(offsets[image, 0], 0), h - size)
        x = min(max(offsets[image, 1], 0), w - size)
        # A half turn reverses rows and columns; a quarter turn transposes and reverses one of them.
        quarter, reverse = rotation % 2 == 1, (rotation == 1 or rotation == 2) != (flips[image] != 0)
        origin = ((image * h + y) * w + x) * c
        unpack(images, origin, w * c, size, rotation >= 2, reverse and not quarter, planes)
        if quarter:
            transpose(planes, reverse, rotated)
        top = planes.shape[1] - size if quarter and reverse else 0  # below the padding, which the reversal put first
        pack(rotated if quarter else planes, top, size, channels_last, normalization, out, row * c * size * size)


def run(images, rotations, flips, offsets, every, size, mean, std, dtype, channels_last) -> torch.Tensor:
    """Runs the compiled loop; arguments and result as those of the reference."""
    b, c = images.shape[0], images.shape[3]
    out = tensors.allocate(images, (4 * b if every else b, c, size, size), dtype, channels_last)
    cpu_threads.parallel_rows(
        rotate_rows,
        len(out),
        out.numel(),
        tensors.as_flat_array(images.contiguous()),
        tuple(images.shape),
        tensors.as_int64_array(rotations),
        tensors.as_int64_array(flips),
        tensors.as_int64_array(offsets),
        every,
        size,
        channels_last,
        make_normalization(mean, std, dtype),
        tensors.as_flat_array(out),
    )
    return out
