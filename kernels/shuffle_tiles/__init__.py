"""Cut tiles, put them in permuted order, disturb colors and normalize: jigsaw puzzles in one launch."""

import math

import numpy as np
import torch
import triton
import triton.language as tl

from kernels import checks, cpu_threads, normalize, registry, tensors
from kernels.cpu_jit import jit_loop
from kernels.cpu_planes import Normalization, make_normalization, pack, scratch, unpack_gray_row, unpack_row
from kernels.examples import POINTERS, SCALES, image_batches, integers
from kernels.triton_tiles import load_coordinate, store_pixels, store_scaled


@triton.jit
def channel_pixels(source, corner, shift, i, j, h, w, CHANNEL: tl.constexpr, C: tl.constexpr, TILE: tl.constexpr):
    """The shifted pixels (i, j) of one tile and channel, each coordinate clamped into the image."""
    y = load_coordinate(corner) + load_coordinate(shift + 2 * CHANNEL)
    x = load_coordinate(corner + 1) + load_coordinate(shift + 2 * CHANNEL + 1)
    # A tile further out reads the same edge pixels, so the scalar fits 32 bits after this clamp.
    y = tl.minimum(tl.maximum(y, -TILE), h).to(tl.int32)
    x = tl.minimum(tl.maximum(x, -TILE), w).to(tl.int32)
    y = tl.minimum(tl.maximum(y + i, 0), h - 1)
    x = tl.minimum(tl.maximum(x + j, 0), w - 1)
    return tl.load(source + (y * w * C + (x * C + CHANNEL)), mask=(i < TILE) & (j < TILE), other=0).to(tl.int32)


@triton.jit
def tile_pixels(source, corner, shift, gray, i, j, h, w, C: tl.constexpr, TILE: tl.constexpr):
    """The (red, green, blue) of a tile's pixels (i, j), gray where asked, 0 outside; one channel fills all three."""
    r = channel_pixels(source, corner, shift, i, j, h, w, 0, C, TILE)
    g = r
    b = r
    if C == 3:
        g = channel_pixels(source, corner, shift, i, j, h, w, 1, C, TILE)
        b = channel_pixels(source, corner, shift, i, j, h, w, 2, C, TILE)
        luma = (19595 * r + 38470 * g + 7471 * b + 32768) >> 16
        is_gray = tl.load(gray) != 0
        r = tl.where(is_gray, luma, r)
        g = tl.where(is_gray, luma, g)
        b = tl.where(is_gray, luma, b)
    return r, g, b


@triton.jit
def standard_scales(total, squares, N: tl.constexpr):
    """(mean, 1 / max(std, 1)) of N values, from their exact integer sum and sum of squares."""
    count = tl.full((), N, tl.float32)
    one = tl.full((), 1, tl.float32)
    std = tl.div_rn(tl.sqrt_rn((N * squares - total * total).to(tl.float32)), count)
    return tl.div_rn(total.to(tl.float32), count), tl.div_rn(one, tl.maximum(std, one))


@triton.jit
def total(lanes):
    """The exact sum of a block of 32-bit lanes."""
    return tl.sum(lanes.to(tl.int64))


@triton.jit
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
    """One whole tile, BLOCK x BLOCK pixels at a time, so that a tile of any size fits the registers. Standardizing
    goes over the tile twice; the second reading comes from the cache."""
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
        m0, s0 = standard_scales(total(r1), total(r2), N)
        m1, s1 = m0, s0
        m2, s2 = m0, s0
        if C == 3:
            m1, s1 = standard_scales(total(g1), total(g2), N)
            m2, s2 = standard_scales(total(b1), total(b2), N)
    for top in range(0, TILE, BLOCK):
        for left in range(0, TILE, BLOCK):
            r, g, b = tile_pixels(source, corner, shift, grays + image, top + i, left + j, h, w, C, TILE)
            r = store_scaled(r, m0, s0, out)
            g = store_scaled(g, m1, s1, out)
            b = store_scaled(b, m2, s2, out)
            store_pixels(out + row * (N * C), r, g, b, top, left, TILE, TILE, C, LAST)


def _block_size(tile):
    """(side of the blocks, warps): sixteen pixels for each thread, the smallest tiles aside."""
    return (16, 1) if tile <= 16 else (32, 2)


def _triton(images, permutations, corners, shifts, grays, tile, standardize, mean, std, dtype, channels_last):
    b, h, w, c = images.shape
    t = permutations.shape[1]
    out = tensors.allocate(images, (b * t, c, tile, tile), dtype, channels_last)
    block, warps = _block_size(tile)
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
                BLOCK=block,
                num_warps=warps,
                enable_fp_fusion=False,
            )
    return out


@jit_loop
def _copy_tile(images, shape, image, corner, shifts, size, planes):
    """A tile into the first c planes; the others are for what else a row of pixels holds."""
    _, h, w, c = shape
    together = c == 3 and (shifts[0] == shifts[1]).all() and (shifts[0] == shifts[2]).all()
    for channel in range(1 if together else c):
        top, left = corner[0] + shifts[channel, 0], corner[1] + shifts[channel, 1]
        red, green, blue = (0 if channel == 0 else 3), (1 if channel == 1 else 4), (2 if channel == 2 else 5)
        if together:
            green, blue = 1, 2
        for i in range(size):
            line = (image * h + min(max(top + i, 0), h - 1)) * w
            if left < 0 or left + size > w:
                for j in range(size):
                    p = (line + min(max(left + j, 0), w - 1)) * c
                    for k in range(channel, c if together else channel + 1):
                        planes[k, i, j] = images[np.uint64(p + k)]
            elif c == 3:
                unpack_row(images, (line + left) * 3, size, False, planes, i, red, green, blue)
            else:
                unpack_gray_row(images, line + left, size, False, planes, i)


@jit_loop
def _to_gray(planes, size):
    for i in range(size):
        for j in range(size):
            luma = 19595 * np.int32(planes[0, i, j]) + 38470 * np.int32(planes[1, i, j])
            luma = (luma + 7471 * np.int32(planes[2, i, j]) + 32768) >> 16
            planes[0, i, j] = planes[1, i, j] = planes[2, i, j] = luma


@jit_loop
def _standard_scales(planes, channel, size):
    """(mean, 1 / max(std, 1)) of one channel of a tile. A row's sums fit 32 bits, of which a vector holds more."""
    count, total, squares = size * size, 0, 0
    for i in range(size):
        row_total, row_squares = np.uint32(0), np.uint32(0)
        for j in range(size):
            v = np.uint32(planes[channel, i, j])
            row_total = np.uint32(row_total + v)
            row_squares = np.uint32(row_squares + np.uint32(v * v))
        total += np.int64(row_total)
        squares += np.int64(row_squares)
    std = np.float32(math.sqrt(np.float32(count * squares - total * total))) / np.float32(count)
    return np.float32(total) / np.float32(count), np.float32(1) / max(std, np.float32(1))


@jit_loop
def _cpu_rows(
    first, last, images, shape, permutations, corners, shifts, grays, size, standardize, channels_last, tone, out
):
    c, t, every = shape[3], permutations.shape[1], scratch(2 * shape[3], size)
    planes = every[:c]
    if standardize:
        tone = Normalization(tone.means.copy(), tone.scales.copy(), tone.table, tone.kind)
    for row in range(first, last):
        image = row // t
        place = min(max(permutations[image, row % t], 0), t - 1)
        _copy_tile(images, shape, image, corners[image, place], shifts[image], size, every)
        if grays[image] != 0 and c == 3:
            _to_gray(planes, size)
        for channel in range(c if standardize else 0):
            tone.means[channel], tone.scales[channel] = _standard_scales(planes, channel, size)
        pack(planes, 0, size, channels_last, tone, out, row * c * size * size)


def _cpu(images, permutations, corners, shifts, grays, tile, standardize, mean, std, dtype, channels_last):
    shape = (images.shape[0] * permutations.shape[1], images.shape[3], tile, tile)
    out = tensors.allocate(images, shape, dtype, channels_last)
    # A standardized tile is computed, in float32 because the loop does not round to 16 bits.
    buffer = tensors.allocate(images, shape, torch.float32, channels_last) if standardize else out
    cpu_threads.parallel_rows(
        _cpu_rows,
        len(out),
        out.numel(),
        tensors.as_flat_array(images.contiguous()),
        tuple(images.shape),
        tensors.as_int64_array(permutations),
        tensors.as_int64_array(tensors.as_coordinates(corners)),
        tensors.as_int64_array(tensors.as_coordinates(shifts)),
        tensors.as_int64_array(grays),
        tile,
        standardize,
        channels_last,
        make_normalization(mean, std, buffer.dtype),
        tensors.as_flat_array(buffer),
    )
    return out.copy_(buffer) if standardize and dtype != torch.float32 else buffer


def _reference(images, permutations, corners, shifts, grays, tile, standardize, mean, std, dtype, channels_last):
    b, h, w, c = images.shape
    t, steps = permutations.shape[1], torch.arange(tile)
    places = permutations.long().clamp(0, t - 1)[:, :, None].expand(-1, -1, 2)
    starts = tensors.as_coordinates(corners).gather(1, places)[:, :, None] + tensors.as_coordinates(shifts)[:, None]
    y = (starts[..., 0, None] + steps).clamp(0, h - 1)[..., :, None]
    x = (starts[..., 1, None] + steps).clamp(0, w - 1)[..., None, :]
    pixels = images[torch.arange(b).view(b, 1, 1, 1, 1), y, x, torch.arange(c).view(c, 1, 1)]
    if c == 3:
        red, green, blue = pixels.int().unbind(2)
        luma = ((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16).to(torch.uint8)
        pixels = torch.where((grays != 0).view(b, 1, 1, 1, 1), luma[:, :, None], pixels)
    pixels = pixels.reshape(b * t, c, tile, tile)
    out = tensors.allocate(images, pixels.shape, dtype, channels_last)
    if not standardize:
        return out.copy_(normalize.normalize(pixels, mean, std, dtype))
    count, exact = torch.tensor(tile * tile, dtype=torch.float32), pixels.long()
    total, squares = exact.sum((2, 3), keepdim=True), (exact * exact).sum((2, 3), keepdim=True)
    # Through float64, because torch's float32 square root on a CPU is not correctly rounded.
    spread = (tile * tile * squares - total * total).float().double().sqrt().float() / count
    return out.copy_((pixels.float() - total.float() / count) * (1 / spread.clamp(min=1)))


@torch.library.custom_op("tilespin::shuffle_tiles", mutates_args=())
def shuffle_tiles_op(
    images: torch.Tensor,
    permutations: torch.Tensor,
    corners: torch.Tensor,
    shifts: torch.Tensor,
    grays: torch.Tensor,
    tile: int,
    standardize: bool,
    mean: list[float],
    std: list[float],
    dtype: torch.dtype,
    channels_last: bool,
) -> torch.Tensor:
    """The operator behind `shuffle_tiles`; its arguments are not checked."""
    run = registry.choose_implementation(_triton, _cpu, images)
    return run(images, permutations, corners, shifts, grays, tile, standardize, mean, std, dtype, channels_last)


@shuffle_tiles_op.register_fake
def _(images, permutations, corners, shifts, grays, tile, standardize, mean, std, dtype, channels_last):
    shape = (images.shape[0] * permutations.shape[1], images.shape[3], tile, tile)
    return tensors.allocate(images, shape, dtype, channels_last)


def shuffle_tiles(
    images,
    permutations,
    corners,
    shifts,
    grays,
    *,
    tile,
    standardize,
    mean,
    std,
    dtype=torch.float32,
    channels_last=False,
):
    """Cut tiles from each image in a permuted order, shift their channels, gray them, and normalize them.

    images: uint8 [b, h, w, c], c 1 or 3, any strides. The others are integers: permutations [b, t]; corners
    [b, t, 2], each tile's top-left (y, x) in pixels; shifts [b, c, 2], (y, x) in pixels, added per channel;
    grays [b], not 0 for gray. Row b*t + s of the result holds tile permutations[b, s] (clamped to 0..t-1)
    of image b; coordinates are clamped into the image. Gray is (19595 R + 38470 G + 7471 B + 32768) >> 16
    of the shifted channels, in all three. standardize: each tile and channel by its own mean and
    max(std, 1), from exact sums, for float dtypes only; else by mean and std, c floats in pixel units.
    Returns [b * t, c, tile, tile] of dtype uint8, float32, bfloat16 or float16, in NCHW or channels_last
    memory order. Raises ValueError for an argument of another type, shape, device or range.
    Source: jigsaw puzzles with gaps, chromatic jitter and tile normalization (Noroozi & Favaro 2016,
    arXiv:1603.09246).
    """
    checks.check_images(images)
    checks.check_size("tile", tile, images)
    b, c, device = images.shape[0], images.shape[3], images.device
    checks.check_tensor("permutations", permutations)
    if permutations.dim() != 2 or permutations.shape[1] < 1:
        raise ValueError(f"permutations: got {list(permutations.shape)}; expected [{b}, t], t >= 1")
    t = permutations.shape[1]
    checks.check_integers("permutations", permutations, (b, t), device)
    checks.check_integers("corners", corners, (b, t, 2), device)
    checks.check_integers("shifts", shifts, (b, c, 2), device)
    checks.check_integers("grays", grays, (b,), device)
    mean, std = checks.check_output(c, mean, std, dtype)
    if standardize and dtype == torch.uint8:
        raise ValueError("standardize: got True with dtype torch.uint8; expected a float dtype")
    return shuffle_tiles_op(
        images,
        permutations,
        corners,
        shifts,
        grays,
        tile,
        standardize,
        mean,
        std,
        dtype,
        channels_last,
    )


def _examples(generator):
    for index, (images, tile, mean, std, dtype, last) in enumerate(image_batches(generator)):
        b, c, t = images.shape[0], images.shape[3], 1 + index % 4
        permutations = torch.rand(b, t, generator=generator).argsort(1).to(torch.int32 if last else torch.int64)
        corners, shifts = (
            integers(generator, (b, t, 2), -4, 14),
            integers(generator, (b, c, 2), -2, 3, torch.int8),
        )
        grays = integers(generator, (b,), 0, 2, torch.bool if last else torch.uint8)
        for standardize in (False, True)[: 1 if dtype == torch.uint8 else 2]:
            yield images, permutations, corners, shifts, grays, tile, standardize, mean, std, dtype, last


def _builds():
    pointers = dict.fromkeys(("permutations", "corners", "shifts", "grays"), "*i64")
    for tile, dtype, standardize, last, budget in (
        (64, torch.bfloat16, True, False, 54),
        (64, torch.float32, False, False, 24),
        (14, torch.float32, True, False, 52),
        (64, torch.bfloat16, True, True, 64),
        (512, torch.bfloat16, True, False, 54),
    ):
        block, warps = _block_size(tile)
        yield registry.Build(
            shuffle_kernel,
            {
                "images": "*u8",
                **pointers,
                "out": POINTERS[dtype],
                **SCALES,
                "h": "i32",
                "w": "i32",
                "tiles": "i32",
            },
            {"TILE": tile, "C": 3, "STANDARDIZE": standardize, "LAST": last, "BLOCK": block},
            warps,
            elements=3 * block * block,
            budget=budget,
            vectorized=tile % 8 == 0,  # else rows do not start at multiples of sixteen bytes
        )


KERNELS = (registry.Kernel("shuffle_tiles", shuffle_tiles_op, _reference, _triton, _cpu, _examples, tuple(_builds())),)
