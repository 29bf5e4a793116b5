"""Brightness, contrast, saturation, hue, gray and normalize: color jitter in two launches."""

import numpy as np
import torch
import triton
import triton.language as tl

from kernels import checks, cpu_threads, normalize, registry, tensors
from kernels.cpu_jit import jit_loop
from kernels.cpu_planes import pack_values
from kernels.examples import MEAN, POINTERS, SCALES, STD, image_batches, integers
from kernels.triton_tiles import store_pixels

CONTRAST = 1  # its place in `order`, after brightness and before saturation and hue
STEPS = 4096  # a gray level in whole steps, so that an image's mean is the same in any order of summation
BLOCK = 1024  # pixels of one program
SPAN, SUMMED = 8192, 512  # pixels that one program sums, and that it sums at a time
_F = np.float32
_TOP, _HALF, _SIX, _RED, _GREEN, _BLUE = _F(255), _F(0.5), _F(6), _F(0.2989), _F(0.587), _F(0.114)


@triton.jit
def luminance(r, g, b):
    """ITU-R 601 luma, with torchvision's weights."""
    return r * 0.2989 + g * 0.587 + b * 0.114


@triton.jit
def blend(v, other, factor):
    """factor of v and the rest of the other, cut off at 0 and 255."""
    return tl.minimum(tl.maximum(v * factor + other * (1.0 - factor), 0.0), 255.0)


@triton.jit
def hue_channel(angle, top, chroma, place):
    """One channel of a color whose hue is an angle in 0..6 sextants from red; place 5 red, 3 green, 1 blue."""
    k = angle + place
    k = tl.where(k >= 6.0, k - 6.0, k)
    return top - chroma * tl.minimum(tl.maximum(tl.minimum(k, 4.0 - k), 0.0), 1.0)


@triton.jit
def adjust(r, g, b, operation, factors, mean):
    """The pixels after one operation: 0 brightness, 1 contrast, 2 saturation, 3 hue."""
    if operation == 0:
        factor = tl.load(factors)
        r = blend(r, 0.0, factor)
        g = blend(g, 0.0, factor)
        b = blend(b, 0.0, factor)
    elif operation == 1:
        factor = tl.load(factors + 1)
        r = blend(r, mean, factor)
        g = blend(g, mean, factor)
        b = blend(b, mean, factor)
    elif operation == 2:
        factor = tl.load(factors + 2)
        gray = luminance(r, g, b)
        r = blend(r, gray, factor)
        g = blend(g, gray, factor)
        b = blend(b, gray, factor)
    elif tl.load(factors + 3) != 0.0:
        shift = tl.minimum(tl.maximum(tl.load(factors + 3), -0.5), 0.5) * 6.0
        top = tl.maximum(tl.maximum(r, g), b)
        chroma = top - tl.minimum(tl.minimum(r, g), b)
        difference = tl.where(top == r, g - b, tl.where(top == g, b - r, r - g))
        angle = tl.div_rn(difference, tl.where(chroma > 0.0, chroma, 1.0))
        angle = angle + tl.where(top == r, 0.0, tl.where(top == g, 2.0, 4.0)) + shift
        angle = tl.where(angle < 0.0, angle + 6.0, angle)
        angle = tl.where(angle >= 6.0, angle - 6.0, angle)
        r = hue_channel(angle, top, chroma, 5.0)
        g = hue_channel(angle, top, chroma, 3.0)
        b = hue_channel(angle, top, chroma, 1.0)
    return r, g, b


@triton.jit
def rgb(source, pixel, inside):
    """The (red, green, blue) of the given pixels."""
    r = tl.load(source + 3 * pixel, mask=inside, other=0).to(tl.float32)
    g = tl.load(source + 3 * pixel + 1, mask=inside, other=0).to(tl.float32)
    b = tl.load(source + 3 * pixel + 2, mask=inside, other=0).to(tl.float32)
    return r, g, b


@triton.jit
def brightness_sums_kernel(
    images,
    factors,
    order,
    sums,
    N: tl.constexpr,
    SPAN: tl.constexpr,
    BLOCK: tl.constexpr,
    STEPS: tl.constexpr,
):
    """The sum, in steps, of the gray levels of SPAN pixels of one image as they are before the contrast's turn."""
    PARTS: tl.constexpr = (N + SPAN - 1) // SPAN
    # int32 lanes cannot overflow: each takes SPAN / BLOCK levels of at most 255 * STEPS
    tl.static_assert((SPAN // BLOCK) * 256 * STEPS < 2**31)
    image = (tl.program_id(0) // PARTS).to(tl.int64)
    start = (tl.program_id(0) % PARTS) * SPAN
    levels = tl.zeros((BLOCK,), tl.int32)
    for block in range(0, SPAN, BLOCK):
        pixel = start + block + tl.arange(0, BLOCK)
        inside = pixel < N
        r, g, b = rgb(images + image * (3 * N), pixel, inside)
        before = 1
        for place in range(4):
            operation = tl.load(order + 4 * image + place).to(tl.int32) & 3
            before = tl.where(operation == 1, 0, before)
            if before != 0:
                r, g, b = adjust(r, g, b, operation, factors + 4 * image, 0.0)
        levels += tl.where(inside, (luminance(r, g, b) * STEPS + 0.5).to(tl.int32), 0)
    tl.store(sums + tl.program_id(0), tl.sum(levels.to(tl.int64)))


@triton.jit
def photometric_kernel(
    images,
    factors,
    order,
    grays,
    sums,
    out,
    m0,
    m1,
    m2,
    s0,
    s1,
    s2,
    N: tl.constexpr,
    SPAN: tl.constexpr,
    STEPS: tl.constexpr,
    LANES: tl.constexpr,
    LAST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """BLOCK pixels of one image."""
    PARTS: tl.constexpr = (N + SPAN - 1) // SPAN
    BLOCKS: tl.constexpr = (N + BLOCK - 1) // BLOCK
    image = (tl.program_id(0) // BLOCKS).to(tl.int64)
    lane = tl.arange(0, LANES)
    total = tl.sum(tl.load(sums + image * PARTS + lane, mask=lane < PARTS, other=0))
    mean = tl.div_rn(total.to(tl.float32), tl.full((), N * STEPS, tl.float32))
    start = (tl.program_id(0) % BLOCKS) * BLOCK
    pixel = start + tl.arange(0, BLOCK)[None, :]
    r, g, b = rgb(images + image * (3 * N), pixel, pixel < N)
    for place in range(4):
        operation = tl.load(order + 4 * image + place).to(tl.int32) & 3
        r, g, b = adjust(r, g, b, operation, factors + 4 * image, mean)
    if tl.load(grays + image) != 0:
        r = luminance(r, g, b)
        g = r
        b = r
    if out.dtype.element_ty == tl.uint8:
        r = (r + 0.5).to(tl.int32)
        g = (g + 0.5).to(tl.int32)
        b = (b + 0.5).to(tl.int32)
    else:
        r = (r - m0) * s0
        g = (g - m1) * s1
        b = (b - m2) * s2
    store_pixels(out + image * (3 * N), r, g, b, 0, start, 1, N, 3, LAST)


def _triton(images, factors, order, grays, mean, std, dtype, channels_last):
    b, h, w, c = images.shape
    out = tensors.allocate(images, (b, c, h, w), dtype, channels_last)
    parts = triton.cdiv(h * w, SPAN)
    sums = torch.empty(b, parts, dtype=torch.int64, device=images.device)
    if b:
        images, factors, order = images.contiguous(), factors.contiguous(), tensors.as_triton_int(order)
        with torch.cuda.device_of(images):
            brightness_sums_kernel[(b * parts,)](
                images,
                factors,
                order,
                sums,
                N=h * w,
                SPAN=SPAN,
                BLOCK=SUMMED,
                STEPS=STEPS,
                num_warps=4,
                enable_fp_fusion=False,
            )
            photometric_kernel[(b * triton.cdiv(h * w, BLOCK),)](
                images,
                factors,
                order,
                tensors.as_triton_int(grays),
                sums,
                out,
                *normalize.scalars(mean, std),
                N=h * w,
                SPAN=SPAN,
                STEPS=STEPS,
                LANES=triton.next_power_of_2(parts),
                LAST=channels_last,
                BLOCK=BLOCK,
                num_warps=4,
                enable_fp_fusion=False,
            )
    return out


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
    """One operation on three lines of pixels, in place."""
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
    """The mean gray level of an image as it is before the contrast's turn."""
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
def _cpu_rows(first, last, images, pixels, factors, order, grays, mean, scale, rounded, channels_last, out):
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


def _cpu(images, factors, order, grays, mean, std, dtype, channels_last):
    b, h, w, c = images.shape
    out = tensors.allocate(images, (b, c, h, w), dtype, channels_last)
    # The loop does not round to 16 bits.
    short = dtype in (torch.bfloat16, torch.float16)
    buffer = tensors.allocate(images, out.shape, torch.float32, channels_last) if short else out
    means, inverses = (np.array(values, np.float32) for values in normalize.scales(mean, std))
    cpu_threads.parallel_rows(
        _cpu_rows,
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


def _reference_gray(pixels):
    return pixels[0] * 0.2989 + pixels[1] * 0.587 + pixels[2] * 0.114


def _reference_blend(pixels, other, factor):
    return (pixels * factor + other * (1 - factor)).clamp(0, 255)


def _reference_mean(pixels):
    total = (_reference_gray(pixels) * STEPS + 0.5).long().sum()
    return total.float() / torch.tensor(pixels[0].numel() * STEPS, dtype=torch.float32)


def _reference_hue(pixels, shift):
    red, green, blue = pixels
    top = pixels.amax(0)
    chroma = top - pixels.amin(0)
    difference = torch.where(top == red, green - blue, torch.where(top == green, blue - red, red - green))
    sextant = torch.where(top == red, 0.0, torch.where(top == green, 2.0, 4.0))
    angle = difference / torch.where(chroma > 0, chroma, 1.0) + sextant + shift.clamp(-0.5, 0.5) * 6
    angle = torch.where(angle < 0, angle + 6, angle)
    angle = torch.where(angle >= 6, angle - 6, angle)
    k = angle + torch.tensor([5.0, 3.0, 1.0]).view(3, 1, 1)
    k = torch.where(k >= 6, k - 6, k)
    return top - chroma * torch.minimum(k, 4 - k).clamp(0, 1)


def _reference(images, factors, order, grays, mean, std, dtype, channels_last):
    b, h, w, c = images.shape
    out = tensors.allocate(images, (b, c, h, w), dtype, channels_last)
    for image in range(b):
        pixels = images[image].permute(2, 0, 1).float()
        for operation in (order[image].long() & 3).tolist():
            factor = factors[image, operation]
            if operation == 0:
                pixels = (pixels * factor).clamp(0, 255)
            elif operation == CONTRAST:
                pixels = _reference_blend(pixels, _reference_mean(pixels), factor)
            elif operation == 2:
                pixels = _reference_blend(pixels, _reference_gray(pixels), factor)
            elif factor != 0:
                pixels = _reference_hue(pixels, factor)
        if grays[image]:
            pixels = _reference_gray(pixels).expand(3, h, w)
        if dtype == torch.uint8:
            pixels = (pixels + 0.5).floor().to(torch.uint8)
        out[image] = normalize.normalize(pixels, mean, std, dtype)
    return out


@torch.library.custom_op("tilespin::photometric", mutates_args=())
def photometric_op(
    images: torch.Tensor,
    factors: torch.Tensor,
    order: torch.Tensor,
    grays: torch.Tensor,
    mean: list[float],
    std: list[float],
    dtype: torch.dtype,
    channels_last: bool,
) -> torch.Tensor:
    """The operator behind `photometric`; its arguments are not checked."""
    run = registry.choose_implementation(_triton, _cpu, images)
    return run(images, factors, order, grays, mean, std, dtype, channels_last)


@photometric_op.register_fake
def _(images, factors, order, grays, mean, std, dtype, channels_last):
    b, h, w, c = images.shape
    return tensors.allocate(images, (b, c, h, w), dtype, channels_last)


def photometric(images, factors, order, grays, *, mean, std, dtype=torch.float32, channels_last=False):
    """Change the brightness, contrast, saturation and hue of each image, gray some, and normalize them.

    images: uint8 [b, h, w, 3], any strides. factors: float32 [b, 4], for brightness, contrast and saturation a
    factor >= 0 (1 changes nothing), for hue a shift in turns, clamped to -0.5..0.5 (0 changes nothing). order:
    integers [b, 4], modulo 4 a permutation: the order of the four for that image, 0 brightness, 1 contrast,
    2 saturation, 3 hue. grays: integers [b], not 0 for gray at the end. The values of factors and order are not
    checked; an order that is no permutation gives undefined pixels. The arithmetic is that of torchvision's
    `adjust_*` and `rgb_to_grayscale` on float images, in 0..255; the mean that contrast blends with is that of
    gray levels rounded to 1/4096. mean, std: 3 floats in pixel units.
    Returns [b, 3, h, w] of dtype uint8 (rounded, halves up), float32, bfloat16 or float16
    ((value - mean) * (1 / std) in float32, then rounded), in NCHW or channels_last memory order.
    Raises ValueError for an argument of another type, shape, device or range.
    Source: color distortion as in SimCLR (Chen et al. 2020, arXiv:2002.05709).
    """
    checks.check_images(images)
    b, c, device = images.shape[0], images.shape[3], images.device
    if c != 3:
        raise ValueError(f"images: got {list(images.shape)}; expected 3 channels")
    checks.check_tensor("factors", factors)
    if factors.dtype != torch.float32 or tuple(factors.shape) != (b, 4) or factors.device != device:
        raise ValueError(
            f"factors: got {factors.dtype} {list(factors.shape)} on {factors.device};"
            f" expected torch.float32 [{b}, 4] on {device}"
        )
    checks.check_integers("order", order, (b, 4), device)
    checks.check_integers("grays", grays, (b,), device)
    mean, std = checks.check_output(c, mean, std, dtype)
    return photometric_op(images, factors, order, grays, mean, std, dtype, channels_last)


def _examples(generator):
    for images, _, mean, std, dtype, last in image_batches(generator):
        b, c = images.shape[0], images.shape[3]
        if c != 3:
            continue
        for grayed in (2, 1):
            factors = torch.rand(b, 4, generator=generator) * 2
            factors[:, 3] = factors[:, 3] / 2 - 0.5
            order = torch.rand(b, 4, generator=generator).argsort(1).to(torch.int32 if last else torch.int64)
            grays = integers(generator, (b,), 0, grayed, torch.bool if last else torch.uint8)
            yield images, factors, order, grays, mean, std, dtype, last
    # more than one program sums
    images = integers(generator, (1, 100, 90, 3), 0, 256, torch.uint8)
    factors, order = torch.tensor([[0.7, 1.6, 1.3, -0.2]]), torch.tensor([[3, 2, 0, 1]])
    yield images, factors, order, torch.zeros(1).int(), list(MEAN), list(STD), torch.float32, False


def _builds():
    pointers = {"images": "*u8", "factors": "*fp32", "order": "*i64", "sums": "*i64"}
    yield registry.Build(
        brightness_sums_kernel,
        pointers,
        {"N": 224 * 224, "SPAN": SPAN, "BLOCK": SUMMED, "STEPS": STEPS},
        warps=4,
        elements=SUMMED,
        budget=230,
        vectorized=False,
    )
    for dtype, last, budget in (
        (torch.float32, False, 60),
        (torch.bfloat16, False, 60),
        (torch.uint8, False, 60),
        (torch.bfloat16, True, 75),
        (torch.float32, True, 75),
    ):
        yield registry.Build(
            photometric_kernel,
            {**pointers, "grays": "*i64", "out": POINTERS[dtype], **SCALES},
            {
                "N": 224 * 224,
                "SPAN": SPAN,
                "STEPS": STEPS,
                "LANES": 8,
                "LAST": last,
                "BLOCK": BLOCK,
            },
            warps=4,
            elements=3 * BLOCK,
            budget=budget,
        )


KERNELS = (registry.Kernel("photometric", photometric_op, _reference, _triton, _cpu, _examples, tuple(_builds())),)
