"""CPU loops over bytes, each so plain that the compiler turns it into vector instructions.

An image is unpacked into one plane of bytes for each channel, turned there, and packed into the output (cpu_output.py).
Indices are unsigned where one is computed: numba then tests none for being negative, and the loop stays a vector's.
"""

import numpy as np

from kernels.cpu_jit import jit_loop


@jit_loop
def scratch(c, size):
    """Allocates c planes for size x size pixels, uint8 [c, n, n], n being size padded to whole blocks of eight."""
    padded = (size + 7) // 8 * 8
    return np.empty((c, padded, padded), np.uint8)


@jit_loop
def unpack_row(images, start, count, mirrored, planes, row, red, green, blue):
    """Unpacks pixels of three channels into a row of three planes.

    All three channels at once: then a vector of bytes is read once and sorted in registers.

    Args:
        images: uint8 [n], pixels of three bytes.
        start: The first pixel's byte.
        count: How many pixels.
        mirrored: Whether the last of them becomes the first of the row.
        planes: uint8 [planes, rows, columns].
        row: Which row of them.
        red: The plane of the first channel.
        green: The plane of the second.
        blue: The plane of the third.
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
    """Copies pixels of one channel into a row of the first plane; arguments as of `unpack_row`."""
    start, end = np.uint64(start), np.uint64(count - 1)
    if mirrored:
        for j in range(count):
            planes[0, row, end - np.uint64(j)] = images[start + np.uint64(j)]
    else:
        for j in range(count):
            planes[0, row, j] = images[start + np.uint64(j)]


@jit_loop
def unpack(images, origin, stride, size, upside_down, mirrored, planes):
    """Unpacks size x size pixels of an image into planes.

    Args:
        images: uint8 [n], pixels of as many bytes as there are planes.
        origin: The first pixel's byte.
        stride: Bytes from one row's start to the next.
        size: The side of the window, in pixels.
        upside_down: Whether the last row comes first.
        mirrored: Whether the last column comes first.
        planes: uint8 [c, n, n], c 1 or 3, as `scratch` makes them.
    """
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
    """Transposes every plane, in blocks of 8 x 8 bytes held in eight words.

    Source: Warren 2012, "Hacker's Delight", 7-3.

    Args:
        planes: uint8 [c, n, n], n a multiple of eight.
        upside_down: Whether the result's last row comes first.
        rotated: The result, uint8 [c, n, n].
    """
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
