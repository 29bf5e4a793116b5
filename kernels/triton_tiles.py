"""Tiles of pixels in the Triton kernels, and their stores: full sectors of memory, channels_last or not."""

import triton
import triton.language as tl

from kernels import tensors
from kernels.triton_jit import jit

FAR = tl.constexpr(tensors.FAR)


def num_blocks(size: int, side: int) -> int:
    """Returns how many side x side tiles cover a size x size window."""
    return triton.cdiv(size, side) ** 2


@jit
def load_coordinate(p):
    """Loads the coordinate at p, clamped to -FAR..FAR pixels, so that sums cannot overflow."""
    return tl.minimum(tl.maximum(tl.load(p).to(tl.int64), -FAR), FAR)


@jit
def patch_rows(top, SIDE: tl.constexpr):
    """Returns the rows of a tile's pixels, in the order of patches, [SIDE / 8, 1, 8, 1].

    A warp that loads a patch, 8 x 4 pixels, reads few sectors of memory, whatever way an image is turned, and a thread
    has few rows and few columns.

    Args:
        top: The tile's first row.
        SIDE: The side of the tile, in pixels.
    """
    return top + tl.arange(0, SIDE).reshape(SIDE // 8, 1, 8, 1)


@jit
def patch_columns(left, SIDE: tl.constexpr):
    """Returns the columns of a tile's pixels, [1, SIDE / 4, 1, 4]; arguments as of `patch_rows`."""
    return left + tl.arange(0, SIDE).reshape(1, SIDE // 4, 1, 4)


@jit
def join_patches(v, out):
    """Returns the patches of a tile, [SIDE / 8, SIDE / 4, 8, 4], as [SIDE, SIDE] values of the type of out."""
    v = v.to(out.dtype.element_ty)
    return v.permute(0, 2, 1, 3).reshape(8 * v.shape[0], 4 * v.shape[1])


@jit
def deinterleave(v):
    """Separates the runs of v, [rows, n, length], at even and at odd places: each [rows, n / 2, length]."""
    return tl.split(v.reshape(v.shape[0], v.shape[1] // 2, 2, v.shape[2]).permute(0, 1, 3, 2))


@jit
def interleave(a, b):
    """Puts behind each run of a, [rows, n, length], that of b: [rows, n, 2 * length]."""
    return tl.join(a, b).permute(0, 1, 3, 2).reshape(a.shape[0], a.shape[1], 2 * a.shape[2])


@jit
def regroup_channels(x, y, z):
    """Regroups the sequence x[0] y[0] z[0] x[1] y[1] ... of runs into runs twice as long, three at a time again.

    A tensor's sides are powers of two, so three channels cannot be interleaved by a reshape.

    Args:
        x: [rows, n, length].
        y: [rows, n, length].
        z: [rows, n, length].

    Returns:
        Three tensors [rows, n / 2, 2 * length].
    """
    x0, x1 = deinterleave(x)
    y0, y1 = deinterleave(y)
    z0, z1 = deinterleave(z)
    return interleave(x0, y0), interleave(z0, x1), interleave(y1, z1)


@jit
def store_pixels(
    target, r, g, b, top, left, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, C: tl.constexpr, LAST: tl.constexpr
):
    """Stores a tile of pixels in an image; those beyond the image are left out.

    Args:
        target: Pointer to the image.
        r: [rows, columns], red, or the only channel; any type.
        g: [rows, columns], green; not stored if C is 1.
        b: [rows, columns], blue; not stored if C is 1.
        top: The image's row where the tile starts.
        left: The image's column where the tile starts.
        HEIGHT: The image's.
        WIDTH: The image's.
        C: The image's channels, 1 or 3.
        LAST: Whether the image is [HEIGHT, WIDTH, C] in memory, instead of [C, HEIGHT, WIDTH].
    """
    kind = target.dtype.element_ty
    if 3 * WIDTH > 2**30:  # then lanes outside may be at elements past 2^31
        left = left.to(tl.int64)
    i = top + tl.arange(0, r.shape[0])[:, None]
    if LAST and C == 3:
        x, y, z = r.to(kind)[:, :, None], g.to(kind)[:, :, None], b.to(kind)[:, :, None]
        for _ in tl.static_range(4):  # pyright: ignore[reportGeneralTypeIssues]  # typed as never returning
            x, y, z = regroup_channels(x, y, z)
        RUN: tl.constexpr = x.shape[2]  # 16 elements: a sector of 32 bytes, in 16 bits
        i = i[:, :, None]
        first = 3 * left + 3 * RUN * tl.arange(0, x.shape[1])[None, :, None] + tl.arange(0, RUN)[None, None, :]
        for k in tl.static_range(3):  # pyright: ignore[reportGeneralTypeIssues]  # typed as never returning
            q = first + k * RUN
            run = x if k == 0 else (y if k == 1 else z)
            tl.store(target + (i * (3 * WIDTH) + q), run, mask=(i < HEIGHT) & (q < 3 * WIDTH))
    else:
        j = left + tl.arange(0, r.shape[1])[None, :]
        for k in tl.static_range(C):  # pyright: ignore[reportGeneralTypeIssues]  # typed as never returning
            v = r if k == 0 else (g if k == 1 else b)
            place = target + (k * HEIGHT * WIDTH + i * WIDTH + j)
            tl.store(place, v.to(kind), mask=(i < HEIGHT) & (j < WIDTH))


@jit
def store_scaled(v, mean, scale, target):
    """Returns a channel as it is stored.

    Args:
        v: Pixels, 0..255.
        mean: Of the channel.
        scale: 1 / std of the channel.
        target: A pointer, whose type says how.

    Returns:
        v for uint8, else (v - mean) * scale in float32.
    """
    return v if target.dtype.element_ty == tl.uint8 else (v.to(tl.float32) - mean) * scale
