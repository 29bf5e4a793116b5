"""Shuffled tiles on a GPU."""

import torch
import triton.language as tl
from triton import Config

from kernels import normalize, tensors, tuning
from kernels.triton_jit import jit
from kernels.triton_tiles import load_coordinate, store_pixels, store_scaled

TUNABLE = tuning.Tunable(
    "shuffle_tiles",
    (
        Config({"BLOCK": 32}, num_warps=2),
        Config({"BLOCK": 16}, num_warps=1),
        Config({"BLOCK": 64}, num_warps=4),
        Config({"BLOCK": 64}, num_warps=8),
        Config({"BLOCK": 32}, num_warps=4),
    ),
    # a tile that one block holds is read once, larger ones twice
    lambda key: 1 if key.size <= 16 else 2 if 32 < key.size <= 64 else 0,
)


@jit
def channel_pixels(source, corner, shift, i, j, h, w, CHANNEL: tl.constexpr, C: tl.constexpr, TILE: tl.constexpr):
    """Loads one channel of one tile, each coordinate clamped into the image.

    Args:
        source: The image, uint8 [h, w, C].
        corner: Pointer to the tile's top left (y, x).
        shift: Pointer to the image's shifts, [C, 2].
        i: Rows of pixels in the tile.
        j: Columns of pixels in the tile.
        h: The image's height.
        w: The image's width.
        CHANNEL: Which channel.
        C: Channels of the image.
        TILE: The side of the tile.

    Returns:
        The int32 pixels (i, j), shifted; 0 outside the tile.
    """
    y = load_coordinate(corner) + load_coordinate(shift + 2 * CHANNEL)
    x = load_coordinate(corner + 1) + load_coordinate(shift + 2 * CHANNEL + 1)
    # A tile further out reads the same edge pixels, so the scalar fits 32 bits after this clamp.
    y = tl.minimum(tl.maximum(y, -TILE), h).to(tl.int32)
    x = tl.minimum(tl.maximum(x, -TILE), w).to(tl.int32)
    y = tl.minimum(tl.maximum(y + i, 0), h - 1)
    x = tl.minimum(tl.maximum(x + j, 0), w - 1)
    return tl.load(source + (y * w * C + (x * C + CHANNEL)), mask=(i < TILE) & (j < TILE), other=0).to(tl.int32)


@jit
def tile_pixels(source, corner, shift, gray, i, j, h, w, C: tl.constexpr, TILE: tl.constexpr):
    """Loads a tile, gray if its image is to be.

    Args:
        source: The image, uint8 [h, w, C].
        corner: Pointer to the tile's top left (y, x).
        shift: Pointer to the image's shifts, [C, 2].
        gray: Pointer to an integer, not 0 for gray.
        i: Rows of pixels in the tile.
        j: Columns of pixels in the tile.
        h: The image's height.
        w: The image's width.
        C: Channels of the image.
        TILE: The side of the tile.

    Returns:
        The int32 (red, green, blue) of the pixels (i, j), 0 outside the tile; one channel fills all three.
    """
    r = channel_pixels(source, corner, shift, i, j, h, w, 0, C, TILE)
    g = r
    b = r
    if C == 3:
        g = channel_pixels(source, corner, shift, i, j, h, w, 1, C, TILE)
        b = channel_pixels(source, corner, shift, i, j, h, w, 2, C, TILE)
        if tl.load(gray) != 0:
            r = (19595 * r + 38470 * g + 7471 * b + 32768) >> 16
            g = r
            b = r
    return r, g, b


@jit
def standard_scales(total, squares, N: tl.constexpr):
    """Returns (mean, 1 / max(std, 1)) of N values, from their exact integer sum and sum of squares."""
    one = tl.full((), 1, tl.float32)
    spread = tl.sqrt_rn((N * squares - total * total).to(tl.float32))
    mean = total.to(tl.float32)
    if N & (N - 1) == 0:  # the same quotients, without a division
        mean = mean * (1 / N)
        std = spread * (1 / N)
    else:
        count = tl.full((), N, tl.float32)
        mean = tl.div_rn(mean, count)
        std = tl.div_rn(spread, count)
    return mean, tl.div_rn(one, tl.maximum(std, one))


@jit
def total(lanes, N: tl.constexpr):
    """Returns the exact sum of a block of 32-bit lanes, as int64; together they hold N squares of pixels at most."""
    return (tl.sum(lanes.to(tl.int32)) if N * 255 * 255 < 2**31 else tl.sum(lanes.to(tl.int64))).to(tl.int64)


@jit
def block_scales(v, N: tl.constexpr):
    """Returns (mean, 1 / max(std, 1)) of a block of N pixels, int32, and of zeros."""
    return standard_scales(total(v, N), total(v * v, N), N)


@jit
def store_block(
    target, r, g, b, m0, m1, m2, s0, s1, s2, top, left, TILE: tl.constexpr, C: tl.constexpr, LAST: tl.constexpr
):
    """Normalizes a block of a tile's pixels and stores it; arguments as of `shuffle_kernel` and `store_pixels`."""
    r = store_scaled(r, m0, s0, target)
    g = store_scaled(g, m1, s1, target)
    b = store_scaled(b, m2, s2, target)
    store_pixels(target, r, g, b, top, left, TILE, TILE, C, LAST)


@jit
def shuffle_kernel(
    images,
    permutations,
    corners,
    shifts,
    grays,
    out,
    m0,
    m1,
    m2,
    s0,
    s1,
    s2,
    h,
    w,
    tiles,
    TILE: tl.constexpr,
    C: tl.constexpr,
    STANDARDIZE: tl.constexpr,
    LAST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Writes one whole tile, BLOCK x BLOCK pixels at a time, so that a tile of any size fits the registers.

    Standardizing goes twice over a tile that is larger than a block; the second reading comes from the cache.

    Args:
        images: uint8 [b, h, w, C], contiguous.
        permutations: Integers [b, tiles].
        corners: Integers [b, tiles, 2].
        shifts: Integers [b, C, 2].
        grays: Integers [b].
        out: [b * tiles, C, TILE, TILE].
        m0: Mean of the first channel.
        m1: Mean of the second.
        m2: Mean of the third.
        s0: 1 / std of the first channel.
        s1: 1 / std of the second.
        s2: 1 / std of the third.
        h: The images' height.
        w: The images' width.
        tiles: Tiles of an image.
        TILE: The side of a tile, in pixels.
        C: Channels, 1 or 3.
        STANDARDIZE: Whether each tile and channel is normalized by its own mean and std, not by m0 to s2.
        LAST: Whether out is in channels_last memory order.
        BLOCK: A power of two.
    """
    N: tl.constexpr = TILE * TILE
    row = tl.program_id(0).to(tl.int64)
    image = row // tiles
    place = tl.load(permutations + row).to(tl.int64)
    place = tl.minimum(tl.maximum(place, 0), tiles - 1)
    corner = corners + 2 * (image * tiles + place)
    shift = shifts + image * (2 * C)
    source = images + image * h * w * C
    i = tl.arange(0, BLOCK)[:, None]
    j = tl.arange(0, BLOCK)[None, :]
    target = out + row * (N * C)
    if TILE <= BLOCK:
        r, g, b = tile_pixels(source, corner, shift, grays + image, i, j, h, w, C, TILE)
        if STANDARDIZE:
            m0, s0 = block_scales(r, N)
            m1, s1 = block_scales(g, N) if C == 3 else (m0, s0)
            m2, s2 = block_scales(b, N) if C == 3 else (m0, s0)
        store_block(target, r, g, b, m0, m1, m2, s0, s1, s2, 0, 0, TILE, C, LAST)
        return
    if STANDARDIZE:
        # the lanes cannot overflow: each takes a pixel of every block, of at most 255 * 255 squared
        tl.static_assert(((TILE + BLOCK - 1) // BLOCK) * ((TILE + BLOCK - 1) // BLOCK) * 255 * 255 < 2**32)
        r1 = tl.zeros((BLOCK, BLOCK), tl.uint32)
        g1, b1, r2, g2, b2 = r1, r1, r1, r1, r1
        for top in range(0, TILE, BLOCK):
            for left in range(0, TILE, BLOCK):
                r, g, b = tile_pixels(source, corner, shift, grays + image, top + i, left + j, h, w, C, TILE)
                r1 += r.to(tl.uint32)
                r2 += (r * r).to(tl.uint32)
                if C == 3:
                    g1 += g.to(tl.uint32)
                    g2 += (g * g).to(tl.uint32)
                    b1 += b.to(tl.uint32)
                    b2 += (b * b).to(tl.uint32)
        m0, s0 = standard_scales(total(r1, N), total(r2, N), N)
        m1, s1 = m0, s0
        m2, s2 = m0, s0
        if C == 3:
            m1, s1 = standard_scales(total(g1, N), total(g2, N), N)
            m2, s2 = standard_scales(total(b1, N), total(b2, N), N)
    for top in range(0, TILE, BLOCK):
        for left in range(0, TILE, BLOCK):
            r, g, b = tile_pixels(source, corner, shift, grays + image, top + i, left + j, h, w, C, TILE)
            store_block(target, r, g, b, m0, m1, m2, s0, s1, s2, top, left, TILE, C, LAST)


def launch(
    images, permutations, corners, shifts, grays, tile, standardize, mean, std, dtype, channels_last
) -> torch.Tensor:
    """Launches the Triton kernel; arguments and result as those of the reference."""
    b, h, w, c = images.shape
    t = permutations.shape[1]
    out = tensors.allocate(images, (b * t, c, tile, tile), dtype, channels_last)
    config = TUNABLE.choose(tile, dtype, channels_last, images.device)
    if b:
        with torch.cuda.device_of(images):
            shuffle_kernel[(b * t,)](
                images.contiguous(),
                tensors.as_triton_int(permutations),
                tensors.as_triton_int(corners),
                tensors.as_triton_int(shifts),
                tensors.as_triton_int(grays),
                out,
                *normalize.scalars(mean, std),
                h,
                w,
                t,
                TILE=tile,
                C=c,
                STANDARDIZE=standardize,
                LAST=channels_last,
                **config,
                enable_fp_fusion=False,
            )
    return out
