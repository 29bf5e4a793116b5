"""Shuffled tiles on a CPU: a compiled loop over the tiles."""

import math

import numpy as np
import torch

from kernels import cpu_threads, tensors
from kernels.cpu_jit import jit_loop
from kernels.cpu_output import Normalization, make_normalization, pack
from kernels.cpu_planes import scratch, unpack_gray_row, unpack_row


@jit_loop
def _copy_tile(images, shape, image, corner, shifts, size, planes):
    """Copies a tile into the first c planes; the others are for what else a row of pixels holds."""
    _, h, w, c = shape
    together = c == 3 and (shifts[0] == shifts[1]).all() and (shifts[0] == shifts[2]).all()
    for channel in range(1 if together else c):
        top, left = corner[0] + shifts[channel, 0], corner[1] + shifts[channel, 1]
        red, green, blue = (0 if channel == 0 else 3), (1 if channel == 1 else 4), (2 if channel == 2 else 5)
        if together:
            green, blue = 1, 2
        for i in range(size):
            line = (image * h + min(max(top + i, 0), h - 1)) * w
            if left < 0 or left + size > w:
                for j in range(size):
                    p = (line + min(max(left + j, 0), w - 1)) * c
                    for k in range(channel, c if together else channel + 1):
                        planes[k, i, j] = images[np.uint64(p + k)]
            elif c == 3:
                unpack_row(images, (line + left) * 3, size, False, planes, i, red, green, blue)
            else:
                unpack_gray_row(images, line + left, size, False, planes, i)


@jit_loop
def _to_gray(planes, size):
    for i in range(size):
        for j in range(size):
            luma = 19595 * np.int32(planes[0, i, j]) + 38470 * np.int32(planes[1, i, j])
            luma = (luma + 7471 * np.int32(planes[2, i, j]) + 32768) >> 16
            planes[0, i, j] = planes[1, i, j] = planes[2, i, j] = luma


@jit_loop
def _standard_scales(planes, channel, size):
    """Returns (mean, 1 / max(std, 1)) of one channel of a tile."""
    # A row's sums fit 32 bits, of which a vector holds more.
    count, total, squares = size * size, 0, 0
    for i in range(size):
        row_total, row_squares = np.uint32(0), np.uint32(0)
        for j in range(size):
            v = np.uint32(planes[channel, i, j])
            row_total = np.uint32(row_total + v)
            row_squares = np.uint32(row_squares + np.uint32(v * v))
        total += np.int64(row_total)
        squares += np.int64(row_squares)
    std = np.float32(math.sqrt(np.float32(count * squares - total * total))) / np.float32(count)
    return np.float32(total) / np.float32(count), np.float32(1) / max(std, np.float32(1))


@jit_loop
def shuffle_rows(
    first,
    last,
    images,
    shape,
    permutations,
    corners,
    shifts,
    grays,
    size,
    standardize,
    channels_last,
    normalization,
    out,
):
    """Computes the rows first..last-1 of out, a flat array.

    Args:
        first: The first row.
        last: The row behind the last.
        images: The bytes of uint8 [b, h, w, c].
        shape: (b, h, w, c).
        permutations: int64 [b, t].
        corners: int64 [b, t, 2].
        shifts: int64 [b, c, 2].
        grays: int64 [b].
        size: The side of a tile, in pixels.
        standardize: Whether each tile and channel is normalized by its own mean and std.
        channels_last: Whether out is in that memory order.
        normalization: A `Normalization`.
        out: The memory of [b * t, c, size, size].
    """
    c, t, every = shape[3], permutations.shape[1], scratch(2 * shape[3], size)
    planes = every[:c]
    if standardize:
        normalization = Normalization(
            normalization.means.copy(), normalization.scales.copy(), normalization.table, normalization.kind
        )
    for row in range(first, last):
        image = row // t
        place = min(max(permutations[image, row % t], 0), t - 1)
        _copy_tile(images, shape, image, corners[image, place], shifts[image], size, every)
        if grays[image] != 0 and c == 3:
            _to_gray(planes, size)
        for channel in range(c if standardize else 0):
            normalization.means[channel], normalization.scales[channel] = _standard_scales(planes, channel, size)
        pack(planes, 0, size, channels_last, normalization, out, row * c * size * size)


def run(
    images, permutations, corners, shifts, grays, tile, standardize, mean, std, dtype, channels_last
) -> torch.Tensor:
    """Runs the compiled loop; arguments and result as those of the reference."""
    shape = (images.shape[0] * permutations.shape[1], images.shape[3], tile, tile)
    out = tensors.allocate(images, shape, dtype, channels_last)
    # A standardized tile is computed, in float32 because the loop does not round to 16 bits.
    buffer = tensors.allocate(images, shape, torch.float32, channels_last) if standardize else out
    cpu_threads.parallel_rows(
        shuffle_rows,
        len(out),
        out.numel(),
        tensors.as_flat_array(images.contiguous()),
        tuple(images.shape),
        tensors.as_int64_array(permutations),
        tensors.as_int64_array(tensors.as_coordinates(corners)),
        tensors.as_int64_array(tensors.as_coordinates(shifts)),
        tensors.as_int64_array(grays),
        tile,
        standardize,
        channels_last,
        make_normalization(mean, std, buffer.dtype),
        tensors.as_flat_array(buffer),
    )
    return out.copy_(buffer) if standardize and dtype != torch.float32 else buffer
