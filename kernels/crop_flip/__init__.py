"""Crop a box, resample it to a square with antialiasing, flip and normalize: random resized crops in one launch."""

import functools
import math

import numpy as np
import torch
import triton
import triton.language as tl

from kernels import checks, cpu_threads, normalize, registry, tensors
from kernels import triton_tiles as tiles
from kernels.cpu_jit import jit_loop
from kernels.cpu_planes import pack_values
from kernels.cpu_simd import WORDS, weigh_pixels
from kernels.examples import MEAN, POINTERS, SCALES, STD, image_batches, integers
from kernels.triton_tiles import SIDE, load_coordinate, store_pixels

# Sides up to 2^14 keep positions in int32; (longest side)^2 <= 2^20 * size keeps the weights' sums under 2^22, so
# that a line's weighted sum fits int32 and a box's, under 2^52, is an exact integer in int64 and in float64.
LONGEST, STEEPEST = 2**14, 2**20


@triton.jit
def box_axis(start, length, limit):
    """(start, length) of a box's side, cut off where it leaves 0..limit-1; at least one pixel stays."""
    end = start + length
    start = tl.maximum(tl.minimum(start, limit - 1), 0)
    end = tl.maximum(tl.minimum(end, limit), start + 1)
    return start.to(tl.int32), (end - start).to(tl.int32)


@triton.jit
def filter_weight(first, center, reach, length, k, SIZE: tl.constexpr):
    """(position, weight) of the k-th source pixel under a triangle. Past the box's end the weight is 0."""
    p = first + k
    weight = tl.maximum(reach - tl.abs((2 * p + 1) * SIZE - center), 0)
    return tl.minimum(p, length - 1), tl.where(p < length, weight, 0)


@triton.jit
def weight_sum(first, center, reach, length, SIZE: tl.constexpr):
    """The sum of the weights of all taps."""
    total = first * 0
    k = 0
    while k * SIZE < reach:  # not a range, whose bound Triton 3.6's interpreter cannot read under NumPy 2.5
        _, weight = filter_weight(first, center, reach, length, k, SIZE)
        total += weight
        k += 1
    return total


@triton.jit
def gray_level(total, weight, inverse):
    """total / weight: the nearest integer and, from the exact remainder, the fraction."""
    nearest = (total.to(tl.float32) * inverse + 0.5).to(tl.int32)
    return nearest.to(tl.float32) + (total - nearest * weight).to(tl.float32) * inverse


@triton.jit
def store_value(total, weight, inverse, mean, scale, out):
    """One channel as it is stored in out: rounded, or normalized."""
    v = gray_level(total, weight, inverse)
    return (v + 0.5).to(tl.int32) if out.dtype.element_ty == tl.uint8 else (v - mean) * scale


@triton.jit
def crop_flip_kernel(
    images,
    regions,
    flips,
    boxes,
    out,
    m0,
    m1,
    m2,
    s0,
    s1,
    s2,
    SIZE: tl.constexpr,
    C: tl.constexpr,
    LAST: tl.constexpr,
):
    """A tile of one output."""
    ACROSS: tl.constexpr = (SIZE + SIDE - 1) // SIDE
    image = (tl.program_id(0) // (ACROSS * ACROSS)).to(tl.int64)
    top = (tl.program_id(0) % (ACROSS * ACROSS) // ACROSS) * SIDE
    left = (tl.program_id(0) % ACROSS) * SIDE
    # Only where an image starts needs int64: its own bytes are fewer than 2^31.
    source = images + tl.load(regions + 3 * image).to(tl.int64)
    h = tl.load(regions + 3 * image + 1).to(tl.int32)
    w = tl.load(regions + 3 * image + 2).to(tl.int32)
    box = boxes + 4 * image
    y, height = box_axis(load_coordinate(box), load_coordinate(box + 2), h)
    x, width = box_axis(load_coordinate(box + 1), load_coordinate(box + 3), w)
    reach_y = 2 * tl.maximum(height, SIZE)
    reach_x = 2 * tl.maximum(width, SIZE)
    # Lanes outside repeat the last row and column, so that every load is of a pixel of the box.
    i = tl.minimum(top + tl.arange(0, SIDE)[:, None], SIZE - 1)
    j = tl.minimum(left + tl.arange(0, SIDE)[None, :], SIZE - 1)
    j = tl.where(tl.load(flips + image) != 0, SIZE - 1 - j, j)
    center_y = (2 * i + 1) * height
    center_x = (2 * j + 1) * width
    first_y = tl.maximum(center_y - reach_y + SIZE, 0) // (2 * SIZE)
    first_x = tl.maximum(center_x - reach_x + SIZE, 0) // (2 * SIZE)
    sum_y = weight_sum(first_y, center_y, reach_y, height, SIZE)
    sum_x = weight_sum(first_x, center_x, reach_x, width, SIZE)
    # before the loop, where few registers are taken
    inverse = tl.div_rn(1.0, sum_y.to(tl.float32)) * tl.div_rn(1.0, sum_x.to(tl.float32))
    source += (y * w + x) * C
    t0 = tl.zeros((SIDE, SIDE), tl.int64)
    t1, t2 = t0, t0
    ky = 0
    while ky * SIZE < reach_y:
        row, weight_y = filter_weight(first_y, center_y, reach_y, height, ky, SIZE)
        l0 = tl.zeros((SIDE, SIDE), tl.int32)
        l1, l2 = l0, l0
        kx = 0
        while kx * SIZE < reach_x:
            column, weight_x = filter_weight(first_x, center_x, reach_x, width, kx, SIZE)
            pixel = source + (row * w + column) * C
            l0 += tl.load(pixel).to(tl.int32) * weight_x
            if C == 3:
                l1 += tl.load(pixel + 1).to(tl.int32) * weight_x
                l2 += tl.load(pixel + 2).to(tl.int32) * weight_x
            kx += 1
        t0 += l0.to(tl.int64) * weight_y
        if C == 3:
            t1 += l1.to(tl.int64) * weight_y
            t2 += l2.to(tl.int64) * weight_y
        ky += 1
    weight = sum_y.to(tl.int64) * sum_x
    r = store_value(t0, weight, inverse, m0, s0, out)
    g = store_value(t1, weight, inverse, m1, s1, out) if C == 3 else r
    b = store_value(t2, weight, inverse, m2, s2, out) if C == 3 else r
    store_pixels(out + image * (SIZE * SIZE * C), r, g, b, top, left, SIZE, SIZE, C, LAST)


def _warps(dtype, channels_last):
    """For a program of 1024 pixels: threads that fill sixteen bytes with four pixels have registers for no more."""
    return 8 if dtype == torch.float32 and not channels_last else 4


def _triton(images, regions, flips, boxes, size, mean, std, dtype, channels_last):
    b, c = regions.shape[0], len(mean)
    out = tensors.allocate(images, (b, c, size, size), dtype, channels_last)
    if b:
        with torch.cuda.device_of(images):
            crop_flip_kernel[(b * tiles.num_blocks(size),)](
                images.contiguous(),
                *map(tensors.as_triton_int, (regions, flips, boxes)),
                out,
                *normalize.scalars(mean, std),
                SIZE=size,
                C=c,
                LAST=channels_last,
                num_warps=_warps(dtype, channels_last),
                enable_fp_fusion=False,
            )
    return out


@jit_loop
def _clip_axis(start, length, limit):
    """(start, length) of a box's side, as `box_axis` has it."""
    end = start + length
    start = max(min(start, limit - 1), 0)
    return start, max(min(end, limit), start + 1) - start


@jit_loop
def _axis(length, size):
    """Of a box's side: each output's first pixel, the weights of as many from there on for every output, their sums."""
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
    """Where the k-th row starts and its weight, or, past the last, that row again and 0."""
    last = len(weights) - 1
    return np.uint64(start + min(k, last) * stride), np.int32(weights[k] if k <= last else 0)


@jit_loop
def _weigh_rows(images, start, stride, weights, line):
    """The weighted sum of as many rows of bytes, which start `stride` apart: four at a time, so that line is seldom
    read; two or three, which are all that most boxes have, in loops of their own."""
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
    """totals / (sum_y * sums_x), as `gray_level` has it."""
    half, inverse = np.float32(0.5), np.float32(1) / np.float32(sum_y)
    for j in range(len(values)):
        factor = inverse * inverses_x[j]
        nearest = np.int64(np.float32(totals[j]) * factor + half)
        rest = np.int64(totals[j]) - nearest * (sum_y * sums_x[j])
        values[j] = np.float32(nearest) + np.float32(rest) * factor


@jit_loop(error_model="numpy")
def _short_gray_levels(totals, shift, sum_y, sums_x, inverses_x, values):
    """The same of 32 bits of the totals, with sums_x in int32: every remainder fits."""
    half, inverse, sum_y = np.float32(0.5), np.float32(1) / np.float32(sum_y), np.int32(sum_y)
    for j in range(len(values)):
        factor = inverse * inverses_x[j]
        total = np.uint32(totals[j] >> shift)
        nearest = np.int32(np.float32(total) * factor + half)
        rest = np.int32(np.int32(total) - np.int32(nearest * np.int32(sum_y * sums_x[j])))
        values[j] = np.float32(nearest) + np.float32(rest) * factor


@jit_loop(error_model="numpy")
def _cpu_rows(first, last, images, regions, flips, boxes, size, mean, scale, rounded, channels_last, out):
    c = len(mean)
    totals, values = np.empty(c * size + WORDS, np.uint64), np.empty(c * size, np.float32)
    interleaved = channels_last and c == 3
    for image in range(first, last):
        start, h, w = regions[image]
        y, height = _clip_axis(boxes[image, 0], boxes[image, 2], h)
        x, width = _clip_axis(boxes[image, 1], boxes[image, 3], w)
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


def _cpu(images, regions, flips, boxes, size, mean, std, dtype, channels_last):
    out = tensors.allocate(images, (regions.shape[0], len(mean), size, size), dtype, channels_last)
    # The loop does not round to 16 bits.
    short = dtype in (torch.bfloat16, torch.float16)
    buffer = tensors.allocate(images, out.shape, torch.float32, channels_last) if short else out
    means, inverses = (np.array(values, np.float32) for values in normalize.scales(mean, std))
    cpu_threads.parallel_rows(
        _cpu_rows,
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


def _reference_axis(start, length, limit, size):
    """The pixels of a box's side, and the weight of each in each output: slice, [size, pixels]."""
    first = min(max(start, 0), limit - 1)
    pixels = range(first, min(max(start + length, first + 1), limit))
    p, i, n = torch.arange(len(pixels)), torch.arange(size)[:, None], len(pixels)
    weights = 2 * max(n, size) - ((2 * p + 1) * size - (2 * i + 1) * n).abs()
    return slice(pixels.start, pixels.stop), weights.clamp(min=0).double()


def _reference(images, regions, flips, boxes, size, mean, std, dtype, channels_last):
    c = len(mean)
    out = tensors.allocate(images, (regions.shape[0], c, size, size), dtype, channels_last)
    for image, (y, x, height, width) in enumerate(tensors.as_coordinates(boxes).tolist()):
        start, h, w = regions[image].tolist()
        pixels = images[start : start + h * w * c].reshape(h, w, c)
        rows, down = _reference_axis(y, height, h, size)
        columns, across = _reference_axis(x, width, w, size)
        # float64 holds all these sums exactly, whatever their order
        total = down @ pixels[rows, columns].permute(2, 0, 1).double() @ across.T
        sum_y, sum_x = down.sum(1)[:, None], across.sum(1)
        inverse = (1 / sum_y.float()) * (1 / sum_x.float())
        nearest = (total.float() * inverse + 0.5).floor()
        value = nearest + (total - nearest.double() * (sum_y * sum_x)).float() * inverse
        if dtype == torch.uint8:
            value = (value + 0.5).floor().to(torch.uint8)
        out[image] = normalize.normalize(value.flip(2) if flips[image] else value, mean, std, dtype)
    return out


@torch.library.custom_op("tilespin::crop_flip", mutates_args=())
def crop_flip_op(
    images: torch.Tensor,
    regions: torch.Tensor,
    flips: torch.Tensor,
    boxes: torch.Tensor,
    size: int,
    mean: list[float],
    std: list[float],
    dtype: torch.dtype,
    channels_last: bool,
) -> torch.Tensor:
    """The operator behind `crop_flip`; its arguments are not checked."""
    run = registry.choose_implementation(_triton, _cpu, images)
    return run(images, regions, flips, boxes, size, mean, std, dtype, channels_last)


@crop_flip_op.register_fake
def _(images, regions, flips, boxes, size, mean, std, dtype, channels_last):
    return tensors.allocate(images, (regions.shape[0], len(mean), size, size), dtype, channels_last)


def _equal_regions(b, h, w, c, device):
    """The regions of b images of one size."""
    starts = torch.arange(b, device="cpu") * (h * w * c)
    return torch.stack([starts, torch.full_like(starts, h), torch.full_like(starts, w)], 1).to(device)


_known_regions = functools.lru_cache(maxsize=64)(_equal_regions)


@jit_loop
def _first_fault(regions, boxes, count, c, limit):
    """(image, longest side of its box) of the first box that is too long; (image, 0) of the first that is not inside
    `count` bytes; or (-1, 0)."""
    for image in range(len(regions)):
        start, h, w = regions[image]
        # first without a product that could overflow
        if start < 0 or h < 1 or w < 1 or h > (2**31 - 1) // c // w or start > count - h * w * c:
            return image, 0
        longest = max(
            _clip_axis(boxes[image, 0], boxes[image, 2], h)[1], _clip_axis(boxes[image, 1], boxes[image, 3], w)[1]
        )
        if longest > limit:
            return image, longest
    return -1, 0


def _check_regions(images, regions, boxes, size, c):
    """Raise ValueError unless every place is inside images and every box's sides are exact."""
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


def crop_flip(images, flips, boxes, *, size, mean, std, dtype=torch.float32, channels_last=False, regions=None):
    """Cut a box from each image, resample it to size x size with antialiasing, flip and normalize it.

    images: uint8 [b, h, w, c], c 1 or 3, any strides; or, with regions, uint8 [n], bytes among which images of any
    sizes lie. regions: integers [b, 3], (offset, h, w) of each image, whose h*w*c bytes, c being the length of mean,
    start at images[offset]; in any order, the same ones again, too. flips: integers [b], not 0 for mirrored
    left-right. boxes: integers [b, 4], (y, x, height, width) in pixels, of which the part inside the image counts,
    at least one pixel a side. The resampling is that of `torch.nn.functional.interpolate(mode="bilinear",
    antialias=True)`: an output is the mean of the box's pixels under a triangle centered on it, which reaches
    max(1, side / size) pixels each way. Weights are exact integers, so the mean is exact up to float32's rounding
    (2^-16 of a gray level); a box of size x size gives its very pixels. size, h, w <= 16384 and
    max(h, w)^2 <= 2^20 * size, with regions not for h and w but for the sides of the box's part inside the image.
    mean, std: c floats in pixel units (0..255).
    Returns [b, c, size, size] of dtype uint8 (rounded, halves up), float32, bfloat16 or float16
    ((value - mean) * (1 / std) in float32, then rounded), in NCHW or channels_last memory order.
    Raises ValueError for an argument of another type, shape, device or range. On a GPU and under torch.compile the
    values of regions, and of boxes with them, are not looked at: there the caller answers for offset >= 0, h, w >= 1,
    h*w*c < 2^31, offset + h*w*c <= n and the sides of the boxes.
    Source: random resized crops (Szegedy et al. 2015, arXiv:1409.4842).
    """
    if regions is None:
        checks.check_images(images)
        b, c = images.shape[0], images.shape[3]
    else:
        checks.check_bytes("images", images)
        checks.check_tensor("regions", regions)
        checks.check_integers("regions", regions, (*regions.shape[:1], 3), images.device)
        b, c = regions.shape[0], None
    checks.check_integers("flips", flips, (b,), images.device)
    checks.check_integers("boxes", boxes, (b, 4), images.device)
    longest = max(images.shape[1:3]) if regions is None else 1
    if not isinstance(size, int) or not 1 <= size <= LONGEST or longest > LONGEST or longest**2 > STEEPEST * size:
        raise ValueError(
            f"size: got {size!r} for images {list(images.shape)}; expected an int in 1..{LONGEST}, sides <= {LONGEST},"
            f" (longest side)^2 <= {STEEPEST} * size"
        )
    mean, std = checks.check_output(c, mean, std, dtype)
    concrete = type(images) is torch.Tensor and not torch.compiler.is_compiling()
    if regions is None:
        regions = (_known_regions if concrete else _equal_regions)(*images.shape, images.device)
        images = images.reshape(-1)
    elif concrete and images.device.type == "cpu":
        _check_regions(images, regions, boxes, size, len(mean))
    return crop_flip_op(images, regions, flips, boxes, size, mean, std, dtype, channels_last)


def _mixed_sizes(generator, c, sizes):
    """(images, regions) of images of these sizes, a few unused bytes around each, and some of them again."""
    starts, end = [], 0
    for h, w in sizes:
        starts.append(end := end + 5)
        end += h * w * c
    regions = torch.tensor([(start, *size) for start, size in zip(starts, sizes)])
    order = integers(generator, (len(sizes) + 2,), 0, len(sizes))
    return integers(generator, (end + 3,), 0, 256, torch.uint8), regions[order]


def _examples(generator):
    for images, size, mean, std, dtype, last in image_batches(generator):
        b, h, w, c = images.shape
        flips = integers(generator, (b,), 0, 2, torch.bool if last else torch.int8)
        boxes = integers(generator, (b, 4), -3, max(h, w) + 3, torch.int64 if last else torch.int16)
        images, regions = images.reshape(-1), _equal_regions(b, h, w, c, "cpu")
        yield images, regions, flips, boxes, size, mean, std, dtype, last
        # enlarged, and a box that is the image
        boxes = torch.tensor([[0, 0, h, w]]).expand(b, 4)
        yield images, regions, flips, boxes, max(h, w) + 5, mean, std, dtype, last
    for size, dtype in ((9, torch.float32), (16, torch.uint8)):
        images, regions = integers(generator, (70 * 90 * 3,), 0, 256, torch.uint8), torch.tensor([[0, 70, 90]])
        boxes = torch.tensor([[1, 2, 67, 83]])
        yield images, regions, torch.ones(1).int(), boxes, size, list(MEAN), list(STD), dtype, False
    for c, size, dtype, last in (
        (3, 20, torch.uint8, True),
        (1, 33, torch.float32, False),
        (3, 7, torch.bfloat16, True),
    ):
        images, regions = _mixed_sizes(generator, c, ((31, 8), (1, 1), (50, 47), (9, 60), (64, 3)))
        boxes, flips = (integers(generator, (len(regions), *n), -3, 64, torch.int32) for n in ((4,), ()))
        yield images, regions, flips, boxes, size, list(MEAN[:c]), list(STD[:c]), dtype, last


def _builds():
    for dtype, last, budget in (
        (torch.float32, False, 90),  # four pixels a thread share what the others' eight do
        (torch.bfloat16, False, 70),
        (torch.uint8, False, 70),
        (torch.bfloat16, True, 82),
        (torch.float32, True, 82),
    ):
        yield registry.Build(
            crop_flip_kernel,
            {
                "images": "*u8",
                "regions": "*i64",
                "flips": "*i64",
                "boxes": "*i64",
                "out": POINTERS[dtype],
                **SCALES,
            },
            {"SIZE": 224, "C": 3, "LAST": last},
            warps=_warps(dtype, last),
            elements=3 * SIDE.value**2,
            budget=budget,
        )


KERNELS = (registry.Kernel("crop_flip", crop_flip_op, _reference, _triton, _cpu, _examples, tuple(_builds())),)
