"""Color jitter on a GPU: a launch that sums gray levels, and one that computes pixels."""

import math

import torch
import triton
import triton.language as tl
from triton import Config

from kernels import normalize, tensors, tuning
from kernels.photometric.reference import STEPS
from kernels.photometric.triton_adjust import adjust, luminance
from kernels.triton_jit import jit
from kernels.triton_tiles import store_pixels

SPAN = 8192  # pixels that one program sums
SUMS = tuning.Tunable(
    "photometric sums",
    (
        Config({"BLOCK": 512}, num_warps=2),
        Config({"BLOCK": 512}, num_warps=4),
        Config({"BLOCK": 256}, num_warps=2),
    ),
)
PIXELS = tuning.Tunable(
    "photometric pixels",
    (
        Config({"BLOCK": 1024}, num_warps=4),
        Config({"BLOCK": 512}, num_warps=2),
        Config({"BLOCK": 512}, num_warps=4),
    ),
)


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
    side = math.isqrt(h * w)
    summed, config = (tunable.choose(side, dtype, channels_last, images.device) for tunable in (SUMS, PIXELS))
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
                STEPS=STEPS,
                **summed,
                enable_fp_fusion=False,
            )
            photometric_kernel[(b * triton.cdiv(h * w, config["BLOCK"]),)](
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
                **config,
                enable_fp_fusion=False,
            )
    return out
