"""Color jitter on a GPU: a launch that sums gray levels, and one that computes pixels."""

import torch
import triton
import triton.language as tl

from kernels import normalize, tensors
from kernels.photometric.reference import STEPS
from kernels.triton_jit import jit
from kernels.triton_tiles import store_pixels

BLOCK = 1024  # pixels of one program
SPAN, SUMMED = 8192, 512  # pixels that one program sums, and that it sums at a time


@jit
def luminance(r, g, b):
    """Returns ITU-R 601 luma, with torchvision's weights."""
    return r * 0.2989 + g * 0.587 + b * 0.114


@jit
def blend(v, other, factor):
    """Returns v * factor + other * (1 - factor), cut off at 0 and 255."""
    return tl.minimum(tl.maximum(v * factor + other * (1.0 - factor), 0.0), 255.0)


@jit
def hue_channel(angle, top, chroma, place):
    """Returns one channel of a color.

    Args:
        angle: The hue, in 0..6 sextants from red.
        top: The largest of the color's three channels.
        chroma: The largest less the smallest.
        place: Which channel: 5 red, 3 green, 1 blue.
    """
    k = angle + place
    k = tl.where(k >= 6.0, k - 6.0, k)
    return top - chroma * tl.minimum(tl.maximum(tl.minimum(k, 4.0 - k), 0.0), 1.0)


@jit
def adjust(r, g, b, operation, factors, mean):
    """Returns the pixels after one operation.

    Args:
        r: Red, float32 in 0..255.
        g: Green.
        b: Blue.
        operation: 0 brightness, 1 contrast, 2 saturation, 3 hue.
        factors: Pointer to the image's four factors, float32.
        mean: The mean gray level that contrast blends with.
    """
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


@jit
def rgb(source, pixel, inside):
    """Loads pixels of an image.

    Args:
        source: The image, uint8 [h * w, 3].
        pixel: Which pixels.
        inside: Which of them are in the image; the others are taken to be 0.

    Returns:
        (red, green, blue), float32 in 0..255.
    """
    r = tl.load(source + 3 * pixel, mask=inside, other=0).to(tl.float32)
    g = tl.load(source + 3 * pixel + 1, mask=inside, other=0).to(tl.float32)
    b = tl.load(source + 3 * pixel + 2, mask=inside, other=0).to(tl.float32)
    return r, g, b


@jit
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
    """Sums the gray levels of SPAN pixels of one image as they are when it is the contrast's turn.

    Args:
        images: uint8 [b, h, w, 3], contiguous.
        factors: float32 [b, 4].
        order: Integers [b, 4], modulo 4.
        sums: Output, int64 [b, parts], in 1 / STEPS of a gray level.
        N: h * w.
        SPAN: Pixels of one program, whose number in an image is parts.
        BLOCK: Pixels that a program sums at a time, a power of two.
        STEPS: Into how many steps a gray level is divided.
    """
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


@jit
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
    """Writes BLOCK pixels of one image.

    Args:
        images: uint8 [b, h, w, 3], contiguous.
        factors: float32 [b, 4].
        order: Integers [b, 4], modulo 4.
        grays: Integers [b].
        sums: int64 [b, parts], as `brightness_sums_kernel` left them.
        out: [b, 3, h, w].
        m0: Mean of the first channel.
        m1: Mean of the second.
        m2: Mean of the third.
        s0: 1 / std of the first channel.
        s1: 1 / std of the second.
        s2: 1 / std of the third.
        N: h * w.
        SPAN: Pixels of each sum.
        STEPS: Into how many steps a gray level is divided.
        LANES: A power of two, parts or more.
        LAST: Whether out is in channels_last memory order.
        BLOCK: A power of two.
    """
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


def launch(images, factors, order, grays, mean, std, dtype, channels_last) -> torch.Tensor:
    """Launches the Triton kernels; arguments and result as those of the reference."""
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
