"""The rotations on a GPU."""

import torch
import triton.language as tl
from triton import Config

from kernels import normalize, tensors, tuning
from kernels import triton_tiles as tiles
from kernels.triton_jit import jit
from kernels.triton_tiles import join_patches, patch_columns, patch_rows, store_pixels, store_scaled

CONFIGS = (
    Config({"SIDE": 32}, num_warps=2),
    Config({"SIDE": 32}, num_warps=4),
    Config({"SIDE": 16}, num_warps=1),
)
TUNABLES = {every: tuning.Tunable("rotate_all" if every else "rotate", CONFIGS) for every in (False, True)}


@jit
def rotated_window(rotation, flip, y, x, w, SIZE: tl.constexpr, C: tl.constexpr):
    """Returns where a turned window's first pixel lies and the way from it to the next ones.

    Args:
        rotation: Quarter turns counterclockwise, 0..3.
        flip: Not 0 where the window is mirrored left-right before it is turned.
        y: The window's first row in the image.
        x: The window's first column in the image.
        w: The image's width.
        SIZE: The window's side.
        C: The image's channels.

    Returns:
        The element offset of the output's pixel (0, 0) in the image, and the steps per output row and per column.
    """
    across = tl.where(flip != 0, -C, C)
    first = (y * w + x) * C + tl.where(flip != 0, (SIZE - 1) * C, 0)
    line = w * C
    origin = first + tl.where(rotation >= 2, (SIZE - 1) * line, 0)
    origin += tl.where((rotation == 1) | (rotation == 2), (SIZE - 1) * across, 0)
    down = tl.where(rotation == 0, line, tl.where(rotation == 1, -across, tl.where(rotation == 2, -line, across)))
    right = tl.where(rotation == 0, across, tl.where(rotation == 1, line, tl.where(rotation == 2, -across, -line)))
    return origin, down, right


@jit
def load_tile(p, inside, mean, scale, out):
    """Loads one channel of a tile.

    Args:
        p: Pointers to uint8, [SIDE / 8, SIDE / 4, 8, 4]: patches of 8 x 4 pixels.
        inside: Which of them are in the window; the others are taken to be 0.
        mean: Of the channel.
        scale: 1 / std of the channel.
        out: The output, which says what values are to be stored.

    Returns:
        [SIDE, SIDE] values as they are stored in out.
    """
    return join_patches(store_scaled(tl.load(p, mask=inside, other=0), mean, scale, out), out)


@jit
def rotate_kernel(
    images,
    rotations,
    flips,
    offsets,
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
    C: tl.constexpr,
    ALL_ROTATIONS: tl.constexpr,
    LAST: tl.constexpr,
    SIDE: tl.constexpr,
):
    """Writes one SIDE x SIDE tile of one output or, with ALL_ROTATIONS, those of all four that show the same pixels,
    which are then cached.

    Args:
        images: uint8 [b, h, w, C], contiguous.
        rotations: Integers [b]; not read with ALL_ROTATIONS.
        flips: Integers [b].
        offsets: Integers [b, 2].
        out: [b, C, SIZE, SIZE], or [4 * b, C, SIZE, SIZE] with ALL_ROTATIONS.
        m0: Mean of the first channel.
        m1: Mean of the second.
        m2: Mean of the third.
        s0: 1 / std of the first channel.
        s1: 1 / std of the second.
        s2: 1 / std of the third.
        h: The images' height.
        w: The images' width.
        SIZE: The side of the window, in pixels.
        C: Channels, 1 or 3.
        ALL_ROTATIONS: Whether row 4 * i + k of out is image i turned k times.
        LAST: Whether out is in channels_last memory order.
        SIDE: A power of two, at least 16 pixels.
    """
    ACROSS: tl.constexpr = (SIZE + SIDE - 1) // SIDE
    image = (tl.program_id(0) // (ACROSS * ACROSS)).to(tl.int64)
    a = tl.program_id(0) % (ACROSS * ACROSS) // ACROSS
    b = tl.program_id(0) % ACROSS
    y = tl.load(offsets + 2 * image).to(tl.int64)
    x = tl.load(offsets + 2 * image + 1).to(tl.int64)
    y = tl.minimum(tl.maximum(y, 0), h - SIZE).to(tl.int32)
    x = tl.minimum(tl.maximum(x, 0), w - SIZE).to(tl.int32)
    flip = tl.load(flips + image)
    source = images + image * h * w * C
    for step in range(4 if ALL_ROTATIONS else 1):
        rotation = step if ALL_ROTATIONS else tl.load(rotations + image).to(tl.int32) & 3
        row = 4 * image + step if ALL_ROTATIONS else image
        origin, down, right = rotated_window(rotation, flip, y, x, w, SIZE, C)
        i = patch_rows(a * SIDE, SIDE)
        j = patch_columns(b * SIDE, SIDE)
        inside = (i < SIZE) & (j < SIZE)
        p = source + (origin + i * down + j * right)
        red = load_tile(p, inside, m0, s0, out)
        green = load_tile(p + 1, inside, m1, s1, out) if C == 3 else red
        blue = load_tile(p + 2, inside, m2, s2, out) if C == 3 else red
        store_pixels(out + row * (SIZE * SIZE * C), red, green, blue, a * SIDE, b * SIDE, SIZE, SIZE, C, LAST)
        a, b = ACROSS - 1 - b, a


def launch(images, rotations, flips, offsets, every, size, mean, std, dtype, channels_last) -> torch.Tensor:
    """Launches the Triton kernel; arguments and result as those of the reference."""
    b, h, w, c = images.shape
    out = tensors.allocate(images, (4 * b if every else b, c, size, size), dtype, channels_last)
    config = TUNABLES[every].choose(size, dtype, channels_last, images.device)
    if b:
        with torch.cuda.device_of(images):
            rotate_kernel[(b * tiles.num_blocks(size, config["SIDE"]),)](
                images.contiguous(),
                tensors.as_triton_int(rotations),
                tensors.as_triton_int(flips),
                tensors.as_triton_int(offsets),
                out,
                *normalize.scalars(mean, std),
                h,
                w,
                SIZE=size,
                C=c,
                ALL_ROTATIONS=every,
                LAST=channels_last,
                **config,
                enable_fp_fusion=False,
            )
    return out
