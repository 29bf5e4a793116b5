"""Lightness and color bins on a CPU: a compiled loop over the images."""

import numpy as np
import torch

from kernels import cpu_threads, normalize, tensors
from kernels.cpu_jit import jit_loop
from kernels.cpu_output import pack_values
from kernels.lab import tables

_F = np.float32
_PER_KNOT, _KNOTS, _LAST = _F(tables.KNOTS / tables.ONE), _F(tables.KNOTS), tables.KNOTS - 1
_PER_STEP, _MIDDLE, _SIDE = _F(1 / tables.STEP), _F(tables.REACH + 0.5), tables.SIDE
_WEIGHTS = np.array(tables.WEIGHTS, np.float32)


@jit_loop
def _interpolate(table, light):
    place = min(light * _PER_KNOT, _KNOTS)
    knot = np.uint64(min(np.int64(place), _LAST))
    low = table[knot]
    return low + (table[knot + np.uint64(1)] - low) * (place - _F(knot))


@jit_loop
def _weigh(red, green, blue, weights):
    return red * weights[0] + green * weights[1] + blue * weights[2]


@jit_loop
def _square(value):
    return min(max(np.int64(value * _PER_STEP + _MIDDLE), 0), _SIDE - 1)


@jit_loop
def _add_row(images, origin, step, size, cell, linear, lightness, line, sums):
    """Computes the lightness of a row of pixels, in each of three lines, and adds their light to the sums of cells."""
    weights = _WEIGHTS[1]
    for k in range(size // cell):
        red, green, blue = 0, 0, 0
        for j in range(k * cell, (k + 1) * cell):
            p = np.uint64(origin + step * j)
            r, g, b = linear[images[p]], linear[images[p + np.uint64(1)]], linear[images[p + np.uint64(2)]]
            red, green, blue = red + r, green + g, blue + b
            value = _interpolate(lightness, _weigh(_F(r), _F(g), _F(b), weights))
            line[0, j], line[1, j], line[2, j] = value, value, value
        sums[0, k] += red
        sums[1, k] += green
        sums[2, k] += blue


@jit_loop
def _store_bins(sums, share, root, numbers, bins, origin):
    """Stores the bins of a row of cells."""
    for k in range(sums.shape[1]):
        r, g, b = _F(sums[0, k]) * share, _F(sums[1, k]) * share, _F(sums[2, k]) * share
        x = _interpolate(root, _weigh(r, g, b, _WEIGHTS[0]))
        y = _interpolate(root, _weigh(r, g, b, _WEIGHTS[1]))
        z = _interpolate(root, _weigh(r, g, b, _WEIGHTS[2]))
        bins[origin + k] = numbers[_square((x - y) * _F(500)) * _SIDE + _square((y - z) * _F(200))]


@jit_loop
def lab_rows(
    first,
    last,
    images,
    shape,
    flips,
    offsets,
    size,
    cell,
    share,
    lookups,
    mean,
    scale,
    rounded,
    channels_last,
    out,
    bins,
):
    """Computes the images first..last-1 of out and bins, flat arrays.

    Args:
        first: The first image.
        last: The image behind the last.
        images: The bytes of uint8 [b, h, w, 3].
        shape: (b, h, w, 3).
        flips: int64 [b].
        offsets: int64 [b, 2].
        size: The side of the window, in pixels.
        cell: The side of a cell, in pixels.
        share: float32, 1 / cell^2.
        lookups: LINEAR, ROOT, LIGHTNESS and BINS of `tables`.
        mean: float32 [3].
        scale: float32 [3], 1 / std.
        rounded: Whether out holds uint8, rounded lightness, instead of normalized float32.
        channels_last: Whether out is in that memory order.
        out: The memory of [b, 3, size, size].
        bins: The memory of int64 [b, size / cell, size / cell].
    """
    _, h, w, _ = shape
    linear, root, lightness, numbers = lookups
    n = size // cell
    line, sums = np.empty((3, size), np.float32), np.zeros((3, n), np.int64)
    for image in range(first, last):
        y = min(max(offsets[image, 0], 0), h - size)
        x = min(max(offsets[image, 1], 0), w - size)
        step = -3 if flips[image] != 0 else 3
        for i in range(size):
            origin = ((image * h + y + i) * w + x + (size - 1 if step < 0 else 0)) * 3
            _add_row(images, origin, step, size, cell, linear, lightness, line, sums)
            place = 3 * image * size * size + i * size * (3 if channels_last else 1)
            pack_values(line, size, channels_last, mean, scale, rounded, out, place, size * size)
            if (i + 1) % cell == 0:
                _store_bins(sums, share, root, numbers, bins, (image * n + i // cell) * n)
                sums[:] = 0


def run(images, flips, offsets, size, cell, mean, std, dtype, channels_last) -> tuple[torch.Tensor, torch.Tensor]:
    """Runs the compiled loop; arguments and result as those of the reference."""
    b, c = images.shape[0], images.shape[3]
    out = tensors.allocate(images, (b, c, size, size), dtype, channels_last)
    bins = torch.empty(b, size // cell, size // cell, dtype=torch.int64)
    # The loop does not round to 16 bits.
    short = dtype in (torch.bfloat16, torch.float16)
    buffer = tensors.allocate(images, out.shape, torch.float32, channels_last) if short else out
    means, inverses = (np.array(values, np.float32) for values in normalize.scales(mean, std))
    cpu_threads.parallel_rows(
        lab_rows,
        len(out),
        out.numel(),
        tensors.as_flat_array(images.contiguous()),
        tuple(images.shape),
        tensors.as_int64_array(flips),
        tensors.as_int64_array(offsets),
        size,
        cell,
        np.float32(1 / cell**2),
        (tables.LINEAR, tables.ROOT, tables.LIGHTNESS, tables.BINS),
        means,
        inverses,
        dtype == torch.uint8,
        channels_last,
        tensors.as_flat_array(buffer),
        tensors.as_flat_array(bins),
    )
    return (out.copy_(buffer) if short else out), bins
