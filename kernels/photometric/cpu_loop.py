"""Color jitter on a CPU: a compiled loop over the images."""

import numpy as np
import torch

from kernels import cpu_threads, normalize, tensors
from kernels.cpu_jit import jit_loop
from kernels.cpu_output import pack_values
from kernels.photometric.reference import CONTRAST, STEPS

BLOCK = 1024  # pixels that are held at a time

_F = np.float32
_TOP, _HALF, _SIX, _RED, _GREEN, _BLUE = _F(255), _F(0.5), _F(6), _F(0.2989), _F(0.587), _F(0.114)


@jit_loop
def _luminance(r, g, b):
    return r * _RED + g * _GREEN + b * _BLUE


@jit_loop
def _clamp(v):
    return min(max(v, _F(0)), _TOP)


@jit_loop
def _hue_channel(angle, top, chroma, place):
    k = angle + place
    k = k - _SIX if k >= _SIX else k
    return top - chroma * min(max(min(k, _F(4) - k), _F(0)), _F(1))


@jit_loop(error_model="numpy")
def _adjust(r, g, b, operation, factors, mean):
    """Applies one operation to three lines of pixels, in place."""
    factor = factors[operation]
    rest = _F(1) - factor
    if operation <= 1:
        other = rest * mean if operation == 1 else _F(0)
        for line in (r, g, b):
            for i in range(len(line)):
                line[i] = _clamp(line[i] * factor + other)
    elif operation == 2:
        for i in range(len(r)):
            other = _luminance(r[i], g[i], b[i]) * rest
            r[i], g[i], b[i] = (
                _clamp(r[i] * factor + other),
                _clamp(g[i] * factor + other),
                _clamp(b[i] * factor + other),
            )
    elif factor != 0:
        shift = min(max(factor, _F(-0.5)), _HALF) * _SIX
        for i in range(len(r)):
            x, y, z = r[i], g[i], b[i]
            top = max(max(x, y), z)
            chroma = top - min(min(x, y), z)
            difference = y - z if top == x else (z - x if top == y else x - y)
            base = _F(0) if top == x else (_F(2) if top == y else _F(4))
            angle = difference / (chroma if chroma > _F(0) else _F(1)) + base + shift
            angle = angle + _SIX if angle < _F(0) else angle
            angle = angle - _SIX if angle >= _SIX else angle
            r[i] = _hue_channel(angle, top, chroma, _F(5))
            g[i] = _hue_channel(angle, top, chroma, _F(3))
            b[i] = _hue_channel(angle, top, chroma, _F(1))


@jit_loop
def _read(images, origin, r, g, b):
    for i in range(len(r)):
        p = np.uint64(origin + 3 * i)
        r[i], g[i], b[i] = images[p], images[p + np.uint64(1)], images[p + np.uint64(2)]


@jit_loop(error_model="numpy")
def _mean(images, image, pixels, factors, order, lines):
    """Returns the mean gray level of an image as it is when it is the contrast's turn."""
    total = 0
    for start in range(0, pixels, lines.shape[1]):
        count = min(lines.shape[1], pixels - start)
        r, g, b = lines[0, :count], lines[1, :count], lines[2, :count]
        _read(images, 3 * (image * pixels + start), r, g, b)
        for operation in order:
            if operation == CONTRAST:
                break
            _adjust(r, g, b, operation, factors, _F(0))
        for i in range(count):
            total += np.int32(_luminance(r[i], g[i], b[i]) * _F(STEPS) + _HALF)
    return _F(total) / _F(pixels * STEPS)


@jit_loop
def adjust_rows(first, last, images, pixels, factors, order, grays, mean, scale, rounded, channels_last, out):
    """Computes the images first..last-1 of out, a flat array.

    Args:
        first: The first image.
        last: The image behind the last.
        images: The bytes of uint8 [b, h, w, 3].
        pixels: h * w.
        factors: float32 [b, 4].
        order: int64 [b, 4], each a permutation of 0..3.
        grays: int64 [b].
        mean: float32 [3].
        scale: float32 [3], 1 / std.
        rounded: Whether out holds uint8, rounded pixels, instead of normalized float32.
        channels_last: Whether out is in that memory order.
        out: The memory of [b, 3, h, w].
    """
    lines = np.empty((3, BLOCK), np.float32)
    for image in range(first, last):
        level = _mean(images, image, pixels, factors[image], order[image], lines)
        for start in range(0, pixels, BLOCK):
            count = min(BLOCK, pixels - start)
            r, g, b = lines[0, :count], lines[1, :count], lines[2, :count]
            _read(images, 3 * (image * pixels + start), r, g, b)
            for operation in order[image]:
                _adjust(r, g, b, operation, factors[image], level)
            if grays[image] != 0:
                for i in range(count):
                    r[i] = g[i] = b[i] = _luminance(r[i], g[i], b[i])
            origin = 3 * image * pixels + start * (3 if channels_last else 1)
            pack_values(lines, count, channels_last, mean, scale, rounded, out, origin, pixels)


def run(images, factors, order, grays, mean, std, dtype, channels_last) -> torch.Tensor:
    """Runs the compiled loop; arguments and result as those of the reference."""
    b, h, w, c = images.shape
    out = tensors.allocate(images, (b, c, h, w), dtype, channels_last)
    # The loop does not round to 16 bits.
    short = dtype in (torch.bfloat16, torch.float16)
    buffer = tensors.allocate(images, out.shape, torch.float32, channels_last) if short else out
    means, inverses = (np.array(values, np.float32) for values in normalize.scales(mean, std))
    cpu_threads.parallel_rows(
        adjust_rows,
        len(out),
        out.numel(),
        tensors.as_flat_array(images.contiguous()),
        h * w,
        factors.contiguous().numpy(),
        tensors.as_int64_array(order) & 3,
        tensors.as_int64_array(grays),
        means,
        inverses,
        dtype == torch.uint8,
        channels_last,
        tensors.as_flat_array(buffer),
    )
    return out.copy_(buffer) if short else out
