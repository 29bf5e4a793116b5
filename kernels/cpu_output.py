"""CPU loops that normalize pixels and write them to the output, plain and with unsigned indices as in cpu_planes.py."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from kernels import normalize
from kernels.cpu_jit import jit_loop

LOOKED_UP, COMPUTED, COPIED = range(3)


class Normalization(NamedTuple):
    """What the pixels of each channel become.

    Attributes:
        means: float32 [c].
        scales: float32 [c], 1 / std.
        table: [c, 256], the output of each pixel value, 16-bit floats as int16.
        kind: COMPUTED, (pixel - mean) * scale in float32; LOOKED_UP, in the table; or COPIED, the pixels themselves.
    """

    means: np.ndarray
    scales: np.ndarray
    table: np.ndarray
    kind: int


def make_normalization(mean: Sequence[float], std: Sequence[float], dtype: torch.dtype) -> Normalization:
    """Returns how a CPU loop normalizes pixels.

    Args:
        mean: c numbers in pixel units (0..255).
        std: c numbers in pixel units.
        dtype: Of the output.

    Returns:
        The normalization. It is cached: not to be written to.
    """
    return _normalization(tuple(mean), tuple(std), dtype)


@functools.lru_cache(maxsize=64)
def _normalization(mean, std, dtype):
    means, inverses = (np.array(values, np.float32) for values in normalize.scales(mean, std))
    kind = {torch.float32: COMPUTED, torch.uint8: COPIED}.get(dtype, LOOKED_UP)
    return Normalization(means, inverses, normalize.table(mean, std, dtype), kind)


@jit_loop
def _pack_plane(plane, top, size, run, mean, scale, table, kind, out, origin):
    """Writes size x size values of one channel, from row `top` on, in runs."""
    padded = plane.shape[1]
    pixels = plane.reshape(-1)
    for i in range(size * size // run):
        k, start = np.uint64((top + i) * padded), np.uint64(origin + i * run)
        if kind == COMPUTED:
            for j in range(run):
                out[start + np.uint64(j)] = (np.float32(pixels[k + np.uint64(j)]) - mean) * scale
        elif kind == COPIED:
            for j in range(run):
                out[start + np.uint64(j)] = pixels[k + np.uint64(j)]
        else:
            for j in range(run):
                out[start + np.uint64(j)] = table[pixels[k + np.uint64(j)]]


@jit_loop
def _pack_pixels(planes, top, size, run, normalization, out, origin):
    """Writes those of three channels, pixel after pixel."""
    m0, m1, m2 = normalization.means[0], normalization.means[1], normalization.means[2]
    s0, s1, s2 = normalization.scales[0], normalization.scales[1], normalization.scales[2]
    t0, t1, t2 = normalization.table[0], normalization.table[1], normalization.table[2]
    red, green, blue = planes[0].reshape(-1), planes[1].reshape(-1), planes[2].reshape(-1)
    padded, one, two = planes.shape[1], np.uint64(1), np.uint64(2)
    for i in range(size * size // run):
        first, start = np.uint64((top + i) * padded), np.uint64(origin + 3 * i * run)
        if normalization.kind == COMPUTED:
            for j in range(run):
                k, p = start + np.uint64(3 * j), first + np.uint64(j)
                out[k] = (np.float32(red[p]) - m0) * s0
                out[k + one] = (np.float32(green[p]) - m1) * s1
                out[k + two] = (np.float32(blue[p]) - m2) * s2
        elif normalization.kind == COPIED:
            for j in range(run):
                k, p = start + np.uint64(3 * j), first + np.uint64(j)
                out[k], out[k + one], out[k + two] = red[p], green[p], blue[p]
        else:
            for j in range(run):
                k, p = start + np.uint64(3 * j), first + np.uint64(j)
                out[k], out[k + one], out[k + two] = t0[red[p]], t1[green[p]], t2[blue[p]]


@jit_loop
def pack(planes, top, size, channels_last, normalization, out, origin):
    """Normalizes size x size pixels of all planes and writes them.

    Args:
        planes: uint8 [c, n, n], c 1 or 3.
        top: The first row of the planes.
        size: The side of the window, in pixels.
        channels_last: Whether the channels of a pixel are to lie together.
        normalization: The `Normalization`.
        out: The output, a flat array.
        origin: Its first element.
    """
    # a short row is mostly the remainder of a vector loop: what lies together goes together
    run = size * size if planes.shape[1] == size else size
    if channels_last and planes.shape[0] == 3:
        _pack_pixels(planes, top, size, run, normalization, out, origin)
    else:
        for channel in range(planes.shape[0]):
            _pack_plane(
                planes[channel],
                top,
                size,
                run,
                normalization.means[channel],
                normalization.scales[channel],
                normalization.table[channel],
                normalization.kind,
                out,
                origin + channel * size * size,
            )


@jit_loop
def pack_values(values, count, interleaved, means, scales, rounded, out, origin, plane):
    """Normalizes or rounds pixels that were computed in float32, and writes them.

    Args:
        values: float32 [c, n], in 0..255.
        count: How many pixels.
        interleaved: Whether the channels of a pixel are to lie together, c being 3.
        means: float32 [c].
        scales: float32 [c], 1 / std.
        rounded: Whether to round them, halves up, instead of normalizing them.
        out: The output, a flat array.
        origin: Its first element.
        plane: Elements from one channel to the next, unless they are interleaved.
    """
    half, start = np.float32(0.5), np.uint64(origin)
    if interleaved:
        one, three = np.uint64(1), np.uint64(3)
        m0, m1, m2, s0, s1, s2 = means[0], means[1], means[2], scales[0], scales[1], scales[2]
        for j in range(count):
            k = start + three * np.uint64(j)
            if rounded:
                out[k], out[k + one] = np.int32(values[0, j] + half), np.int32(values[1, j] + half)
                out[k + one + one] = np.int32(values[2, j] + half)
            else:
                out[k], out[k + one] = (values[0, j] - m0) * s0, (values[1, j] - m1) * s1
                out[k + one + one] = (values[2, j] - m2) * s2
        return
    for channel in range(values.shape[0]):
        mean, scale, place = means[channel], scales[channel], start + np.uint64(channel * plane)
        if rounded:
            for j in range(count):
                out[place + np.uint64(j)] = np.int32(values[channel, j] + half)
        else:
            for j in range(count):
                out[place + np.uint64(j)] = (values[channel, j] - mean) * scale
