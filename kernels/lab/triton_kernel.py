"""Lightness and color bins on a GPU: a launch over pixels, and one over cells, whose pixels are then cached."""

import torch
import triton
import triton.language as tl
from triton import Config

from kernels import normalize, tensors, tuning
from kernels import triton_tiles as tiles
from kernels.lab import tables
from kernels.triton_jit import jit
from kernels.triton_tiles import store_pixels, store_scaled

LIGHTNESS = tuning.Tunable(
    "lab lightness",
    (
        Config({"SIDE": 32}, num_warps=2),
        Config({"SIDE": 32}, num_warps=4),
        Config({"SIDE": 16}, num_warps=1),
    ),
)
CELLS = tuning.Tunable(
    "lab bins",
    (
        Config({"CELLS": 128}, num_warps=4),
        Config({"CELLS": 64}, num_warps=2),
        Config({"CELLS": 32}, num_warps=1),
    ),
)

PER_KNOT = tl.constexpr(tables.KNOTS / tables.ONE)
KNOTS = tl.constexpr(tables.KNOTS)
PER_STEP, MIDDLE = tl.constexpr(1 / tables.STEP), tl.constexpr(tables.REACH + 0.5)
GRID = tl.constexpr(tables.SIDE)
X_RED, X_GREEN, X_BLUE = map(tl.constexpr, tables.WEIGHTS[0])
Y_RED, Y_GREEN, Y_BLUE = map(tl.constexpr, tables.WEIGHTS[1])
Z_RED, Z_GREEN, Z_BLUE = map(tl.constexpr, tables.WEIGHTS[2])


@jit
def interpolate(table, light):
    """Returns a function of linear light that is linear between the knots of a table.

    Args:
        table: Pointer to its values at the knots, float32.
        light: float32, at least 0; what exceeds the last knot is taken for it.
    """
    place = tl.minimum(light * PER_KNOT, KNOTS * 1.0)
    knot = tl.minimum(place.to(tl.int32), KNOTS - 1)
    low = tl.load(table + knot)
    return low + (tl.load(table + knot + 1) - low) * (place - knot.to(tl.float32))


@jit
def window_start(offsets, flips, image, h, w, SIZE: tl.constexpr):
    """Returns where a flipped window's first pixel lies in its image, in pixels, and the way to the one to its right.

    Args:
        offsets: Integers [b, 2].
        flips: Integers [b].
        image: Which image.
        h: The images' height.
        w: The images' width.
        SIZE: The side of the window, in pixels.
    """
    y = tl.load(offsets + 2 * image).to(tl.int64)
    x = tl.load(offsets + 2 * image + 1).to(tl.int64)
    y = tl.minimum(tl.maximum(y, 0), h - SIZE).to(tl.int32)
    x = tl.minimum(tl.maximum(x, 0), w - SIZE).to(tl.int32)
    flip = tl.load(flips + image)
    return y * w + x + tl.where(flip != 0, SIZE - 1, 0), tl.where(flip != 0, -1, 1)


@jit
def load_light(p, linear, inside):
    """Loads the linear light of one channel, int32.

    Args:
        p: Pointers to uint8.
        linear: Pointer to the light of each value.
        inside: Which of them to load; the others are taken to be 0.
    """
    return tl.load(linear + tl.load(p, mask=inside, other=0).to(tl.int32))


@jit
def lightness_kernel(
    images,
    flips,
    offsets,
    linear,
    lightness,
    out,
    m0,
    m1,
    m2,
    s0,
    s1,
    s2,
    h,
    w,
    SIZE: tl.constexpr,
    LAST: tl.constexpr,
    SIDE: tl.constexpr,
):
    """Writes one SIDE x SIDE tile of the lightness of one image.

    Args:
        images: uint8 [b, h, w, 3], contiguous.
        flips: Integers [b].
        offsets: Integers [b, 2].
        linear: int32 [256], LINEAR of `tables`.
        lightness: float32 [KNOTS + 1], LIGHTNESS of `tables`.
        out: [b, 3, SIZE, SIZE].
        m0: Mean of the first channel.
        m1: Mean of the second.
        m2: Mean of the third.
        s0: 1 / std of the first channel.
        s1: 1 / std of the second.
        s2: 1 / std of the third.
        h: The images' height.
        w: The images' width.
        SIZE: The side of the window, in pixels.
        LAST: Whether out is in channels_last memory order.
        SIDE: A power of two, at least 16 pixels.
    """
    ACROSS: tl.constexpr = (SIZE + SIDE - 1) // SIDE
    image = (tl.program_id(0) // (ACROSS * ACROSS)).to(tl.int64)
    top = tl.program_id(0) % (ACROSS * ACROSS) // ACROSS * SIDE
    left = tl.program_id(0) % ACROSS * SIDE
    start, step = window_start(offsets, flips, image, h, w, SIZE)
    i = top + tl.arange(0, SIDE)[:, None]
    j = left + tl.arange(0, SIDE)[None, :]
    inside = (i < SIZE) & (j < SIZE)
    p = images + image * h * w * 3 + (start + i * w + j * step) * 3
    r = load_light(p, linear, inside).to(tl.float32)
    g = load_light(p + 1, linear, inside).to(tl.float32)
    b = load_light(p + 2, linear, inside).to(tl.float32)
    value = interpolate(lightness, r * Y_RED + g * Y_GREEN + b * Y_BLUE)
    if out.dtype.element_ty == tl.uint8:
        value = (value + 0.5).to(tl.int32)
    r = store_scaled(value, m0, s0, out)
    g = store_scaled(value, m1, s1, out)
    b = store_scaled(value, m2, s2, out)
    store_pixels(out + image * (3 * SIZE * SIZE), r, g, b, top, left, SIZE, SIZE, 3, LAST)


@jit
def bins_kernel(
    images,
    flips,
    offsets,
    linear,
    root,
    numbers,
    bins,
    h,
    w,
    SIZE: tl.constexpr,
    CELL: tl.constexpr,
    SHARE: tl.constexpr,
    CELLS: tl.constexpr,
):
    """Writes the bins of CELLS cells of one image.

    Args:
        images: uint8 [b, h, w, 3], contiguous.
        flips: Integers [b].
        offsets: Integers [b, 2].
        linear: int32 [256], LINEAR of `tables`.
        root: float32 [KNOTS + 1], ROOT of `tables`.
        numbers: int32 [GRID * GRID], BINS of `tables`.
        bins: Output, int64 [b, SIZE / CELL, SIZE / CELL].
        h: The images' height.
        w: The images' width.
        SIZE: The side of the window, in pixels.
        CELL: The side of a cell, in pixels.
        SHARE: 1 / CELL^2, rounded to float32.
        CELLS: Cells of one program, a power of two.
    """
    N: tl.constexpr = SIZE // CELL
    BLOCKS: tl.constexpr = (N * N + CELLS - 1) // CELLS
    image = (tl.program_id(0) // BLOCKS).to(tl.int64)
    cell = tl.program_id(0) % BLOCKS * CELLS + tl.arange(0, CELLS)
    inside = cell < N * N
    start, step = window_start(offsets, flips, image, h, w, SIZE)
    first = images + image * h * w * 3 + (start + cell // N * CELL * w + cell % N * CELL * step) * 3
    red = tl.zeros((CELLS,), tl.int64)
    green = tl.zeros((CELLS,), tl.int64)
    blue = tl.zeros((CELLS,), tl.int64)
    for k in range(CELL * CELL):
        across = k % CELL  # pyright: ignore[reportOperatorIssue]  # a constexpr is a plain int here
        p = first + (k // CELL * w + across * step) * 3
        red += load_light(p, linear, inside)
        green += load_light(p + 1, linear, inside)
        blue += load_light(p + 2, linear, inside)
    r = red.to(tl.float32) * SHARE
    g = green.to(tl.float32) * SHARE
    b = blue.to(tl.float32) * SHARE
    x = interpolate(root, r * X_RED + g * X_GREEN + b * X_BLUE)
    y = interpolate(root, r * Y_RED + g * Y_GREEN + b * Y_BLUE)
    z = interpolate(root, r * Z_RED + g * Z_GREEN + b * Z_BLUE)
    row = ((x - y) * 500.0 * PER_STEP + MIDDLE).to(tl.int32)
    column = ((y - z) * 200.0 * PER_STEP + MIDDLE).to(tl.int32)
    row = tl.minimum(tl.maximum(row, 0), GRID - 1)
    column = tl.minimum(tl.maximum(column, 0), GRID - 1)
    tl.store(bins + image * (N * N) + cell, tl.load(numbers + row * GRID + column).to(tl.int64), mask=inside)


def launch(images, flips, offsets, size, cell, mean, std, dtype, channels_last) -> tuple[torch.Tensor, torch.Tensor]:
    """Launches the Triton kernels; arguments and result as those of the reference."""
    b, h, w, c = images.shape
    n = size // cell
    out = tensors.allocate(images, (b, c, size, size), dtype, channels_last)
    bins = torch.empty(b, n, n, dtype=torch.int64, device=images.device)
    config, cells = (tunable.choose(size, dtype, channels_last, images.device) for tunable in (LIGHTNESS, CELLS))
    if b:
        window = images.contiguous(), tensors.as_triton_int(flips), tensors.as_triton_int(offsets)
        linear, root, lightness, numbers = tables.on_device(images.device)
        with torch.cuda.device_of(images):
            lightness_kernel[(b * tiles.num_blocks(size, config["SIDE"]),)](
                *window,
                linear,
                lightness,
                out,
                *normalize.scalars(mean, std),
                h,
                w,
                SIZE=size,
                LAST=channels_last,
                **config,
                enable_fp_fusion=False,
            )
            bins_kernel[(b * triton.cdiv(n * n, cells["CELLS"]),)](
                *window,
                linear,
                root,
                numbers,
                bins,
                h,
                w,
                SIZE=size,
                CELL=cell,
                SHARE=normalize.float32(1 / cell**2),
                **cells,
                enable_fp_fusion=False,
            )
    return out, bins
