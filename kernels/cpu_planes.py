"""CPU loops over bytes, each so plain that the compiler turns it into vector instructions.

An image is unpacked into one plane of bytes for each channel, turned there, and packed into the output as values.
Indices are unsigned where one is computed: numba then tests none for being negative, and the loop stays a vector's.
"""

import functools
from typing import NamedTuple

import numpy as np
import torch

from kernels import normalize
from kernels.cpu_jit import jit_loop

LOOKED_UP, COMPUTED, COPIED = range(3)


class Normalization(NamedTuple):
    """What the pixels of each channel become. means, scales: float32 [c], for float32; table: the output of each pixel
    value, [c, 256], for 16-bit floats, as int16; kind: which of the two, or the pixels themselves."""

    means: np.ndarray
    scales: np.ndarray
    table: np.ndarray
    kind: int


def make_normalization(mean: list[float], std: list[float], dtype: torch.dtype) -> Normalization:
    """The tone of a normalization, float32 being (pixel - mean) * (1 / std). Not to be written to."""
    return _tone(tuple(mean), tuple(std), dtype)


@functools.lru_cache(maxsize=64)
def _tone(mean, std, dtype):
    means, inverses = (np.array(values, np.float32) for values in normalize.scales(mean, std))
    kind = {torch.float32: COMPUTED, torch.uint8: COPIED}.get(dtype, LOOKED_UP)
    return Normalization(means, inverses, normalize.table(mean, std, dtype), kind)


@jit_loop
def scratch(c, size):
    """Planes for size x size pixels, padded to whole blocks of eight."""
    padded = (size + 7) // 8 * 8
    return np.empty((c, padded, padded), np.uint8)


@jit_loop
def unpack_row(images, start, count, mirrored, planes, row, red, green, blue):
    """`count` pixels, from byte `start` on, into a row of the planes of those numbers; mirrored where asked.

    All three channels at once: then a vector of bytes is read once and sorted in registers.
    """
    start, end, one, two, three = np.uint64(start), np.uint64(count - 1), np.uint64(1), np.uint64(2), np.uint64(3)
    if mirrored:
        for j in range(count):
            k, place = start + three * np.uint64(j), end - np.uint64(j)
            planes[red, row, place] = images[k]
            planes[green, row, place] = images[k + one]
            planes[blue, row, place] = images[k + two]
    else:
        for j in range(count):
            k = start + three * np.uint64(j)
            planes[red, row, j], planes[green, row, j] = images[k], images[k + one]
            planes[blue, row, j] = images[k + two]


@jit_loop
def unpack_gray_row(images, start, count, mirrored, planes, row):
    """The same of one channel."""
    start, end = np.uint64(start), np.uint64(count - 1)
    if mirrored:
        for j in range(count):
            planes[0, row, end - np.uint64(j)] = images[start + np.uint64(j)]
    else:
        for j in range(count):
            planes[0, row, j] = images[start + np.uint64(j)]


@jit_loop
def unpack(images, origin, stride, size, upside_down, mirrored, planes):
    """Size x size pixels, whose rows start `stride` bytes apart, into planes; rows or columns reversed where asked."""
    c, padded = planes.shape[:2]
    rows, count = size, size
    if stride == size * c and padded == size and not upside_down and not mirrored:
        rows, count, planes = 1, size * size, planes.reshape(c, 1, size * size)  # all rows are one
    for i in range(rows):
        row = rows - 1 - i if upside_down else i
        if c == 3:
            unpack_row(images, origin + i * stride, count, mirrored, planes, row, 0, 1, 2)
        else:
            unpack_gray_row(images, origin + i * stride, count, mirrored, planes, row)


@jit_loop
def _swap(x, y, shift, low):
    t = ((x >> shift) ^ y) & low
    return x ^ (t << shift), y ^ t


@jit_loop
def transpose(planes, upside_down, rotated):
    """Every padded plane transposed, in blocks of 8 x 8 bytes held in eight words (Hacker's Delight, 7-3); the last
    row first where asked."""
    far, middle, near = np.uint64(32), np.uint64(16), np.uint64(8)
    by4, by2, by1 = np.uint64(0xFFFFFFFF), np.uint64(0x0000FFFF0000FFFF), np.uint64(0x00FF00FF00FF00FF)
    for channel in range(planes.shape[0]):
        source, target = planes[channel].view(np.uint64), rotated[channel].view(np.uint64)
        for j in range(source.shape[1]):
            for i in range(source.shape[1]):
                a, b, c, d = source[8 * j, i], source[8 * j + 1, i], source[8 * j + 2, i], source[8 * j + 3, i]
                e, f, g, h = source[8 * j + 4, i], source[8 * j + 5, i], source[8 * j + 6, i], source[8 * j + 7, i]
                a, e = _swap(a, e, far, by4)
                b, f = _swap(b, f, far, by4)
                c, g = _swap(c, g, far, by4)
                d, h = _swap(d, h, far, by4)
                a, c = _swap(a, c, middle, by2)
                b, d = _swap(b, d, middle, by2)
                e, g = _swap(e, g, middle, by2)
                f, h = _swap(f, h, middle, by2)
                a, b = _swap(a, b, near, by1)
                c, d = _swap(c, d, near, by1)
                e, f = _swap(e, f, near, by1)
                g, h = _swap(g, h, near, by1)
                row = 8 * (source.shape[1] - 1 - i) if upside_down else 8 * i
                if upside_down:
                    a, b, c, d, e, f, g, h = h, g, f, e, d, c, b, a
                target[row, j], target[row + 1, j], target[row + 2, j], target[row + 3, j] = a, b, c, d
                target[row + 4, j], target[row + 5, j], target[row + 6, j], target[row + 7, j] = e, f, g, h


@jit_loop
def _pack_plane(plane, top, size, run, mean, scale, table, kind, out, origin):
    """Size x size values of one channel, from row `top` on, in runs."""
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
def _pack_pixels(planes, top, size, run, tone, out, origin):
    """The same of three channels, pixel after pixel."""
    m0, m1, m2 = tone.means[0], tone.means[1], tone.means[2]
    s0, s1, s2 = tone.scales[0], tone.scales[1], tone.scales[2]
    t0, t1, t2 = tone.table[0], tone.table[1], tone.table[2]
    red, green, blue = planes[0].reshape(-1), planes[1].reshape(-1), planes[2].reshape(-1)
    padded, one, two = planes.shape[1], np.uint64(1), np.uint64(2)
    for i in range(size * size // run):
        first, start = np.uint64((top + i) * padded), np.uint64(origin + 3 * i * run)
        if tone.kind == COMPUTED:
            for j in range(run):
                k, p = start + np.uint64(3 * j), first + np.uint64(j)
                out[k] = (np.float32(red[p]) - m0) * s0
                out[k + one] = (np.float32(green[p]) - m1) * s1
                out[k + two] = (np.float32(blue[p]) - m2) * s2
        elif tone.kind == COPIED:
            for j in range(run):
                k, p = start + np.uint64(3 * j), first + np.uint64(j)
                out[k], out[k + one], out[k + two] = red[p], green[p], blue[p]
        else:
            for j in range(run):
                k, p = start + np.uint64(3 * j), first + np.uint64(j)
                out[k], out[k + one], out[k + two] = t0[red[p]], t1[green[p]], t2[blue[p]]


@jit_loop
def pack(planes, top, size, channels_last, tone, out, origin):
    """Size x size pixels of all planes, from row `top` on, to out, from its element `origin` on."""
    # a short row is mostly the remainder of a vector loop: what lies together goes together
    run = size * size if planes.shape[1] == size else size
    if channels_last and planes.shape[0] == 3:
        _pack_pixels(planes, top, size, run, tone, out, origin)
    else:
        for channel in range(planes.shape[0]):
            _pack_plane(
                planes[channel],
                top,
                size,
                run,
                tone.means[channel],
                tone.scales[channel],
                tone.table[channel],
                tone.kind,
                out,
                origin + channel * size * size,
            )


@jit_loop
def pack_values(values, count, interleaved, means, scales, rounded, out, origin, plane):
    """`count` pixels of float32 values [c, n], normalized or rounded, from element `origin` of out on: one channel
    after another, `plane` elements apart, or interleaved."""
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
