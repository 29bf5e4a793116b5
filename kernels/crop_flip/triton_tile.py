"""Resampled crops on a GPU: one tile of an output."""

import triton.language as tl

from kernels.triton_jit import jit
from kernels.triton_tiles import join_patches, load_coordinate, patch_columns, patch_rows, store_pixels


@jit
def box_axis(start, length, limit):
    """Returns (start, length) of a box's side, cut off where it leaves 0..limit-1; at least one pixel stays."""
    end = start + length
    start = tl.maximum(tl.minimum(start, limit - 1), 0)
    end = tl.maximum(tl.minimum(end, limit), start + 1)
    return start.to(tl.int32), (end - start).to(tl.int32)


@jit
def filter_weight(first, center, reach, length, k, SIZE: tl.constexpr):
    """Returns the k-th source pixel under each output's triangle, and its weight.

    Args:
        first: The first pixel under the triangle, counted from the start of the box.
        center: The triangle's center, in 1 / (2 * SIZE) pixels.
        reach: How far the triangle reaches each way, in the same unit.
        length: The side of the box, in pixels.
        k: Which pixel.
        SIZE: The side of the output.

    Returns:
        (position, weight). Past the box's end the position is its last pixel and the weight 0.
    """
    p = first + k
    weight = tl.maximum(reach - tl.abs((2 * p + 1) * SIZE - center), 0)
    return tl.minimum(p, length - 1), tl.where(p < length, weight, 0)


@jit
def weight_sum(first, center, reach, length, SIZE: tl.constexpr):
    """Returns the sum of the weights of all pixels under each triangle; arguments as of `filter_weight`."""
    total = first * 0
    k = 0
    while k * SIZE < reach:  # not a range, whose bound Triton 3.6's interpreter cannot read under NumPy 2.5
        _, weight = filter_weight(first, center, reach, length, k, SIZE)
        total += weight
        k += 1
    return total


@jit
def gray_level(total, weight, inverse):
    """Returns total / weight in float32: the nearest integer and, from the exact remainder, the fraction.

    Args:
        total: The weighted sum of pixels, uint64.
        weight: The sum of the weights, uint64.
        inverse: 1 / weight, float32.
    """
    nearest = (total.to(tl.int64).to(tl.float32) * inverse + 0.5).to(tl.uint32)
    rest = (total - nearest.to(tl.uint64) * weight).to(tl.int64)
    return nearest.to(tl.float32) + rest.to(tl.float32) * inverse


@jit
def store_value(total, weight, inverse, mean, scale, out):
    """Returns one channel as it is stored in out: rounded to uint8, or normalized.

    Args:
        total: The weighted sum of pixels, uint64.
        weight: The sum of the weights, uint64.
        inverse: 1 / weight, float32.
        mean: Of the channel.
        scale: 1 / std of the channel.
        out: The output, which says what values are to be stored.
    """
    v = gray_level(total, weight, inverse)
    return (v + 0.5).to(tl.int32) if out.dtype.element_ty == tl.uint8 else (v - mean) * scale


@jit
def write_tile(
    images,
    region,
    flip,
    box,
    out,
    m0,
    m1,
    m2,
    s0,
    s1,
    s2,
    top,
    left,
    SIZE: tl.constexpr,
    C: tl.constexpr,
    LAST: tl.constexpr,
    SIDE: tl.constexpr,
):
    """Writes one SIDE x SIDE tile of one output.

    Args:
        images: uint8 [n], contiguous.
        region: Pointer to the image's (offset, h, w), integers.
        flip: Pointer to an integer, not 0 if the crop is mirrored.
        box: Pointer to (y, x, height, width), integers.
        out: Pointer to the output, [C, SIZE, SIZE].
        m0: Mean of the first channel.
        m1: Mean of the second.
        m2: Mean of the third.
        s0: 1 / std of the first channel.
        s1: 1 / std of the second.
        s2: 1 / std of the third.
        top: The output's row where the tile starts.
        left: The output's column where the tile starts.
        SIZE: The side of the output, in pixels.
        C: Channels, 1 or 3.
        LAST: Whether out is in channels_last memory order.
        SIDE: The side of the tile, a power of two.
    """
    # Only where an image starts needs int64: its own bytes are fewer than 2^31.
    source = images + tl.load(region).to(tl.int64)
    h = tl.load(region + 1).to(tl.int32)
    w = tl.load(region + 2).to(tl.int32)
    y, height = box_axis(load_coordinate(box), load_coordinate(box + 2), h)
    x, width = box_axis(load_coordinate(box + 1), load_coordinate(box + 3), w)
    reach_y = 2 * tl.maximum(height, SIZE)
    reach_x = 2 * tl.maximum(width, SIZE)
    # Lanes outside repeat the last row and column, so that every load is of a pixel of the box.
    i = tl.minimum(patch_rows(top, SIDE), SIZE - 1)
    j = tl.minimum(patch_columns(left, SIDE), SIZE - 1)
    j = tl.where(tl.load(flip) != 0, SIZE - 1 - j, j)
    center_y = (2 * i + 1) * height
    center_x = (2 * j + 1) * width
    first_y = tl.maximum(center_y - reach_y + SIZE, 0) // (2 * SIZE)
    first_x = tl.maximum(center_x - reach_x + SIZE, 0) // (2 * SIZE)
    sum_y = weight_sum(first_y, center_y, reach_y, height, SIZE)
    sum_x = weight_sum(first_x, center_x, reach_x, width, SIZE)
    # before the loop, where few registers are taken
    inverse = tl.div_rn(1.0, sum_y.to(tl.float32)) * tl.div_rn(1.0, sum_x.to(tl.float32))
    source += (y * w + x) * C
    # Unsigned, whose 32-bit factors a GPU multiplies to 64 bits in one instruction.
    t0 = tl.zeros((SIDE // 8, SIDE // 4, 8, 4), tl.uint64)
    t1, t2 = t0, t0
    ky = 0
    while ky * SIZE < reach_y:
        row, weight_y = filter_weight(first_y, center_y, reach_y, height, ky, SIZE)
        weight_y = weight_y.to(tl.uint32).to(tl.uint64)
        l0 = tl.zeros((SIDE // 8, SIDE // 4, 8, 4), tl.uint32)
        l1, l2 = l0, l0
        kx = 0
        while kx * SIZE < reach_x:
            column, weight_x = filter_weight(first_x, center_x, reach_x, width, kx, SIZE)
            weight_x = weight_x.to(tl.uint32)
            pixel = source + (row * w + column) * C
            l0 += tl.load(pixel).to(tl.uint32) * weight_x
            if C == 3:
                l1 += tl.load(pixel + 1).to(tl.uint32) * weight_x
                l2 += tl.load(pixel + 2).to(tl.uint32) * weight_x
            kx += 1
        t0 += l0.to(tl.uint64) * weight_y
        if C == 3:
            t1 += l1.to(tl.uint64) * weight_y
            t2 += l2.to(tl.uint64) * weight_y
        ky += 1
    weight = sum_y.to(tl.uint32).to(tl.uint64) * sum_x.to(tl.uint32).to(tl.uint64)
    r = join_patches(store_value(t0, weight, inverse, m0, s0, out), out)
    g = join_patches(store_value(t1, weight, inverse, m1, s1, out), out) if C == 3 else r
    b = join_patches(store_value(t2, weight, inverse, m2, s2, out), out) if C == 3 else r
    store_pixels(out, r, g, b, top, left, SIZE, SIZE, C, LAST)
