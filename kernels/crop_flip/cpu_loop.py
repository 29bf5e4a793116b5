"""Resampled crops on a CPU: a compiled loop over the outputs."""

import numpy as np
import torch

from kernels import cpu_threads, normalize, tensors
from kernels.cpu_jit import jit_loop
from kernels.cpu_output import pack_values
from kernels.cpu_simd import WORDS, weigh_pixels


@jit_loop
def clip_axis(start, length, limit):
    """Returns (start, length) of a box's side, cut off where it leaves 0..limit-1; at least one pixel stays."""
    end = start + length
    start = max(min(start, limit - 1), 0)
    return start, max(min(end, limit), start + 1) - start


@jit_loop
def _axis(length, size):
    """Returns, of a box's side, each output's first pixel, the weights of as many from there on, and their sums."""
    reach = 2 * max(length, size)
    firsts, sums = np.empty(size, np.int64), np.zeros(size, np.int64)
    weights = np.zeros((size, (reach + size - 1) // size), np.uint64)
    for i in range(size):
        center = (2 * i + 1) * length
        firsts[i] = max(center - reach + size, 0) // (2 * size)
        for k in range(min(weights.shape[1], length - firsts[i])):
            weight = max(reach - abs((2 * (firsts[i] + k) + 1) * size - center), 0)
            weights[i, k] = weight
            sums[i] += weight
    return firsts, weights, sums


@jit_loop
def _row(start, stride, weights, k):
    """Returns where the k-th row starts and its weight, or, past the last, that row again and 0."""
    last = len(weights) - 1
    return np.uint64(start + min(k, last) * stride), np.int32(weights[k] if k <= last else 0)


@jit_loop
def _weigh_rows(images, start, stride, weights, line):
    """Computes the weighted sum of as many rows of bytes, which start `stride` apart: four at a time, so that line is
    seldom read; two or three, which are all that most boxes have, in loops of their own."""
    for k in range(0, len(weights), 4):
        p0, w0 = _row(start, stride, weights, k)
        p1, w1 = _row(start, stride, weights, k + 1)
        p2, w2 = _row(start, stride, weights, k + 2)
        p3, w3 = _row(start, stride, weights, k + 3)
        if k == 0 and w2 == 0:
            for i in range(len(line)):
                j = np.uint64(i)
                line[i] = images[p0 + j] * w0 + images[p1 + j] * w1
        elif k == 0 and w3 == 0:
            for i in range(len(line)):
                j = np.uint64(i)
                line[i] = images[p0 + j] * w0 + images[p1 + j] * w1 + images[p2 + j] * w2
        elif k == 0:
            for i in range(len(line)):
                j = np.uint64(i)
                line[i] = images[p0 + j] * w0 + images[p1 + j] * w1 + images[p2 + j] * w2 + images[p3 + j] * w3
        elif w0 != 0:
            for i in range(len(line)):
                j = np.uint64(i)
                line[i] += images[p0 + j] * w0 + images[p1 + j] * w1 + images[p2 + j] * w2 + images[p3 + j] * w3


@jit_loop(error_model="numpy")
def _gray_levels(totals, sum_y, sums_x, inverses_x, values):
    """Computes totals / (sum_y * sums_x), as `gray_level` of the Triton kernel has it."""
    half, inverse = np.float32(0.5), np.float32(1) / np.float32(sum_y)
    for j in range(len(values)):
        factor = inverse * inverses_x[j]
        nearest = np.int64(np.float32(totals[j]) * factor + half)
        rest = np.int64(totals[j]) - nearest * (sum_y * sums_x[j])
        values[j] = np.float32(nearest) + np.float32(rest) * factor


@jit_loop(error_model="numpy")
def _short_gray_levels(totals, shift, sum_y, sums_x, inverses_x, values):
    """Computes the same of 32 bits of the totals, with sums_x in int32: every remainder fits."""
    half, inverse, sum_y = np.float32(0.5), np.float32(1) / np.float32(sum_y), np.int32(sum_y)
    for j in range(len(values)):
        factor = inverse * inverses_x[j]
        total = np.uint32(totals[j] >> shift)
        nearest = np.int32(np.float32(total) * factor + half)
        rest = np.int32(np.int32(total) - np.int32(nearest * np.int32(sum_y * sums_x[j])))
        values[j] = np.float32(nearest) + np.float32(rest) * factor


@jit_loop(error_model="numpy")
def crop_rows(first, last, images, regions, flips, boxes, size, mean, scale, rounded, channels_last, out):
    """Computes the rows first..last-1 of out, a flat array.

    Args:
        first: The first row.
        last: The row behind the last.
        images: uint8 [n].
        regions: int64 [b, 3], (offset, h, w).
        flips: int64 [b].
        boxes: int64 [b, 4], (y, x, height, width).
        size: The side of the output, in pixels.
        mean: float32 [c].
        scale: float32 [c], 1 / std.
        rounded: Whether out holds uint8, rounded pixels, instead of normalized float32.
        channels_last: Whether out is in that memory order.
        out: The memory of [b, c, size, size].
    """
    c = len(mean)
    totals, values = np.empty(c * size + WORDS, np.uint64), np.empty(c * size, np.float32)
    interleaved = channels_last and c == 3
    for image in range(first, last):
        start, h, w = regions[image]
        y, height = clip_axis(boxes[image, 0], boxes[image, 2], h)
        x, width = clip_axis(boxes[image, 1], boxes[image, 3], w)
        first_y, weights_y, sums_y = _axis(height, size)
        first_x, weights_x, sums_x = _axis(width, size)
        # Where every total fits 32 bits, two rows are weighed at once, in the halves of 64.
        together = 255 * sums_y.max() * sums_x.max() < 2**32
        if flips[image] != 0:
            first_x, weights_x, sums_x = first_x[::-1].copy(), weights_x[::-1].copy(), sums_x[::-1].copy()
        sums_x = sums_x.repeat(c)
        short_x, inverses_x = sums_x.astype(np.int32), np.float32(1) / sums_x.astype(np.float32)
        short_weights_x = weights_x.astype(np.uint32)
        lines = np.empty((2, width * c), np.int32)
        # weights of 0 reach beyond the box
        pair = np.zeros((width + weights_x.shape[1]) * c + WORDS, np.uint64)
        step = 2 if together else 1
        for i in range(0, size, step):
            for row in range(i, min(i + step, size)):
                origin = start + ((y + first_y[row]) * w + x) * c
                weights = weights_y[row, : height - first_y[row]]
                _weigh_rows(images, origin, w * c, weights, lines[row - i])
            for j in range(width * c):
                upper = np.uint64(lines[1, j]) << np.uint64(32) if together else np.uint64(0)
                pair[j] = np.uint64(lines[0, j]) | upper
            if together:
                weigh_pixels(pair, c, first_x, short_weights_x, totals)
            else:
                weigh_pixels(pair, c, first_x, weights_x, totals)
            for row in range(i, min(i + step, size)):
                if together:
                    _short_gray_levels(totals, np.uint64(32 * (row - i)), sums_y[row], short_x, inverses_x, values)
                else:
                    _gray_levels(totals, sums_y[row], sums_x, inverses_x, values)
                origin = image * c * size * size + row * size * (c if interleaved else 1)
                if interleaved and rounded:
                    pack_values(values.reshape(1, c * size), c * size, False, mean, scale, True, out, origin, 0)
                else:
                    pixels = values.reshape(size, c).T
                    pack_values(pixels, size, interleaved, mean, scale, rounded, out, origin, size * size)


def run(images, regions, flips, boxes, size, mean, std, dtype, channels_last) -> torch.Tensor:
    """Runs the compiled loop; arguments and result as those of the reference."""
    out = tensors.allocate(images, (regions.shape[0], len(mean), size, size), dtype, channels_last)
    # The loop does not round to 16 bits.
    short = dtype in (torch.bfloat16, torch.float16)
    buffer = tensors.allocate(images, out.shape, torch.float32, channels_last) if short else out
    means, inverses = (np.array(values, np.float32) for values in normalize.scales(mean, std))
    cpu_threads.parallel_rows(
        crop_rows,
        len(out),
        out.numel(),
        tensors.as_flat_array(images.contiguous()),
        tensors.as_int64_array(regions),
        tensors.as_int64_array(flips),
        tensors.as_int64_array(tensors.as_coordinates(boxes)),
        size,
        means,
        inverses,
        dtype == torch.uint8,
        channels_last,
        tensors.as_flat_array(buffer),
    )
    return out.copy_(buffer) if short else out
