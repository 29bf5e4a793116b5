"""Crop, flip, turn by quarter turns and normalize: rotation prediction in one launch."""

import torch
import triton
import triton.language as tl

from kernels import checks, cpu_threads, normalize, registry, tensors
from kernels import triton_tiles as tiles
from kernels.cpu_jit import jit_loop
from kernels.cpu_planes import make_normalization, pack, scratch, transpose, unpack
from kernels.examples import POINTERS, SCALES, image_batches, integers
from kernels.triton_tiles import SIDE, store_pixels, store_scaled


@triton.jit
def rotated_window(rotation, flip, y, x, w, SIZE: tl.constexpr, C: tl.constexpr):
    """Element offset of the turned window's (0, 0) in the image, and its steps per output row and column."""
    across = tl.where(flip != 0, -C, C)
    first = (y * w + x) * C + tl.where(flip != 0, (SIZE - 1) * C, 0)
    line = w * C
    origin = first + tl.where(rotation >= 2, (SIZE - 1) * line, 0)
    origin += tl.where((rotation == 1) | (rotation == 2), (SIZE - 1) * across, 0)
    down = tl.where(rotation == 0, line, tl.where(rotation == 1, -across, tl.where(rotation == 2, -line, across)))
    right = tl.where(rotation == 0, across, tl.where(rotation == 1, line, tl.where(rotation == 2, -across, -line)))
    return origin, down, right


@triton.jit
def store_window(p, inside, mean, scale, out):
    """The SIDE x SIDE values of one channel whose patches are at p."""
    v = store_scaled(tl.load(p, mask=inside, other=0), mean, scale, out).to(out.dtype.element_ty)
    return v.permute(0, 2, 1, 3).reshape(SIDE, SIDE)


@triton.jit
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
):
    """A tile of one output, or those of all four rotations (ALL_ROTATIONS) that show the same pixels, which are then
    cached."""
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
        # A warp loads patches of 8 x 4 pixels: few sectors of the source, whatever the turn.
        i = a * SIDE + tl.arange(0, SIDE).reshape(SIDE // 8, 1, 8, 1)
        j = b * SIDE + tl.arange(0, SIDE).reshape(1, SIDE // 4, 1, 4)
        inside = (i < SIZE) & (j < SIZE)
        p = source + (origin + i * down + j * right)
        red = store_window(p, inside, m0, s0, out)
        green = store_window(p + 1, inside, m1, s1, out) if C == 3 else red
        blue = store_window(p + 2, inside, m2, s2, out) if C == 3 else red
        store_pixels(out + row * (SIZE * SIZE * C), red, green, blue, a * SIDE, b * SIDE, SIZE, SIZE, C, LAST)
        a, b = ACROSS - 1 - b, a


def _triton(images, rotations, flips, offsets, every, size, mean, std, dtype, channels_last):
    b, h, w, c = images.shape
    out = tensors.allocate(images, (4 * b if every else b, c, size, size), dtype, channels_last)
    if b:
        with torch.cuda.device_of(images):
            rotate_kernel[(b * tiles.num_blocks(size),)](
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
                num_warps=2,
                enable_fp_fusion=False,
            )
    return out


@jit_loop
def _cpu_rows(first, last, images, shape, rotations, flips, offsets, every, size, channels_last, tone, out):
    _, h, w, c = shape
    planes, rotated = scratch(c, size), scratch(c, size)
    for row in range(first, last):
        image = row // 4 if every else row
        rotation = row % 4 if every else rotations[row] & 3
        y = min(max(offsets[image, 0], 0), h - size)
        x = min(max(offsets[image, 1], 0), w - size)
        # A half turn reverses rows and columns; a quarter turn transposes and reverses one of them.
        quarter, reverse = rotation % 2 == 1, (rotation == 1 or rotation == 2) != (flips[image] != 0)
        origin = ((image * h + y) * w + x) * c
        unpack(images, origin, w * c, size, rotation >= 2, reverse and not quarter, planes)
        if quarter:
            transpose(planes, reverse, rotated)
        top = planes.shape[1] - size if quarter and reverse else 0  # below the padding, which the reversal put first
        pack(rotated if quarter else planes, top, size, channels_last, tone, out, row * c * size * size)


def _cpu(images, rotations, flips, offsets, every, size, mean, std, dtype, channels_last):
    b, c = images.shape[0], images.shape[3]
    out = tensors.allocate(images, (4 * b if every else b, c, size, size), dtype, channels_last)
    cpu_threads.parallel_rows(
        _cpu_rows,
        len(out),
        out.numel(),
        tensors.as_flat_array(images.contiguous()),
        tuple(images.shape),
        tensors.as_int64_array(rotations),
        tensors.as_int64_array(flips),
        tensors.as_int64_array(offsets),
        every,
        size,
        channels_last,
        make_normalization(mean, std, dtype),
        tensors.as_flat_array(out),
    )
    return out


def _reference(images, rotations, flips, offsets, every, size, mean, std, dtype, channels_last):
    b, h, w, c = images.shape
    out = tensors.allocate(images, (4 * b if every else b, c, size, size), dtype, channels_last)
    for row in range(out.shape[0]):
        image, rotation = divmod(row, 4) if every else (row, int(rotations[row]) & 3)
        y, x = min(max(int(offsets[image, 0]), 0), h - size), min(max(int(offsets[image, 1]), 0), w - size)
        window = images[image, y : y + size, x : x + size].permute(2, 0, 1)
        window = window.flip(2) if flips[image] else window
        out[row] = normalize.normalize(window.rot90(rotation, (1, 2)), mean, std, dtype)
    return out


def _rotate_all_with(implementation):
    def all_rotations(images, flips, offsets, size, mean, std, dtype, channels_last):
        return implementation(images, flips, flips, offsets, True, size, mean, std, dtype, channels_last)

    return all_rotations


def _rotate_with(implementation):
    def one_rotation(images, rotations, flips, offsets, size, mean, std, dtype, channels_last):
        return implementation(images, rotations, flips, offsets, False, size, mean, std, dtype, channels_last)

    return one_rotation


@torch.library.custom_op("tilespin::rotate", mutates_args=())
def rotate_op(
    images: torch.Tensor,
    rotations: torch.Tensor,
    flips: torch.Tensor,
    offsets: torch.Tensor,
    size: int,
    mean: list[float],
    std: list[float],
    dtype: torch.dtype,
    channels_last: bool,
) -> torch.Tensor:
    """The operator behind `rotate`; its arguments are not checked."""
    run = _rotate_with(registry.choose_implementation(_triton, _cpu, images))
    return run(images, rotations, flips, offsets, size, mean, std, dtype, channels_last)


@rotate_op.register_fake
def _(images, rotations, flips, offsets, size, mean, std, dtype, channels_last):
    return tensors.allocate(images, (images.shape[0], images.shape[3], size, size), dtype, channels_last)


@torch.library.custom_op("tilespin::rotate_all", mutates_args=())
def rotate_all_op(
    images: torch.Tensor,
    flips: torch.Tensor,
    offsets: torch.Tensor,
    size: int,
    mean: list[float],
    std: list[float],
    dtype: torch.dtype,
    channels_last: bool,
) -> torch.Tensor:
    """The operator behind `rotate_all`; its arguments are not checked."""
    run = _rotate_all_with(registry.choose_implementation(_triton, _cpu, images))
    return run(images, flips, offsets, size, mean, std, dtype, channels_last)


@rotate_all_op.register_fake
def _(images, flips, offsets, size, mean, std, dtype, channels_last):
    return tensors.allocate(images, (4 * images.shape[0], images.shape[3], size, size), dtype, channels_last)


def _check(images, flips, offsets, size, mean, std, dtype):
    checks.check_images(images)
    checks.check_size("size", size, images)
    checks.check_integers("flips", flips, (images.shape[0],), images.device)
    checks.check_integers("offsets", offsets, (images.shape[0], 2), images.device)
    return checks.check_output(images.shape[3], mean, std, dtype)


def rotate(images, rotations, flips, offsets, *, size, mean, std, dtype=torch.float32, channels_last=False):
    """Cut a window from each image, flip it, turn it by quarter turns, and normalize it.

    images: uint8 [b, h, w, c], c 1 or 3, any strides. rotations, flips: integers [b]; offsets: integers [b, 2],
    the window's top-left (y, x) in pixels, clamped so that the size x size window lies in the image. The
    window is mirrored left-right where flips is not 0, then turned by rotations & 3 quarter turns
    counter-clockwise, like `torch.rot90` over (height, width). mean, std: c floats in pixel units (0..255).
    Returns [b, c, size, size] of dtype uint8 (the pixels), float32, bfloat16 or float16
    ((pixel - mean) * (1 / std) in float32, then rounded), in NCHW or channels_last memory order.
    Raises ValueError for an argument of another type, shape, device or range.
    Source: RotNet (Gidaris et al. 2018, arXiv:1803.07728).
    """
    mean, std = _check(images, flips, offsets, size, mean, std, dtype)
    checks.check_integers("rotations", rotations, (images.shape[0],), images.device)
    return rotate_op(images, rotations, flips, offsets, size, mean, std, dtype, channels_last)


def rotate_all(images, flips, offsets, *, size, mean, std, dtype=torch.float32, channels_last=False):
    """All four rotations of each image: [4b, c, size, size], whose row 4*i + k is image i turned k times.

    Arguments, result and errors otherwise as for `rotate`.
    """
    mean, std = _check(images, flips, offsets, size, mean, std, dtype)
    return rotate_all_op(images, flips, offsets, size, mean, std, dtype, channels_last)


def _examples(every):
    def examples(generator):
        for images, size, mean, std, dtype, last in image_batches(generator):
            b, labels = images.shape[0], torch.int64 if last else torch.int8
            rotations = () if every else (integers(generator, (b,), -5, 6, labels),)
            flips = integers(generator, (b,), 0, 2, torch.bool if last else torch.uint8)
            offsets = integers(generator, (b, 2), -3, 12)
            yield images, *rotations, flips, offsets, size, mean, std, dtype, last

    return examples


def _builds(every):
    labels = {"rotations": "*i64", "flips": "*i64", "offsets": "*i64", "h": "i32", "w": "i32"}
    for dtype, last, budget in (
        (torch.float32, False, 40 if every else 13),  # the loop over rotations may get unrolled
        (torch.bfloat16, False, 13),
        (torch.uint8, False, 24 if every else 12),
        (torch.bfloat16, True, 21),
        (torch.float32, True, 22),
    ):
        yield registry.Build(
            rotate_kernel,
            {"images": "*u8", "out": POINTERS[dtype], **labels, **SCALES},
            {"SIZE": 224, "C": 3, "ALL_ROTATIONS": every, "LAST": last},
            warps=2,
            elements=3 * SIDE.value**2,
            budget=budget,
        )


KERNELS = tuple(
    registry.Kernel(
        name,
        op,
        wrap(_reference),
        wrap(_triton),
        wrap(_cpu),
        _examples(every),
        tuple(_builds(every)),
    )
    for name, op, wrap, every in (
        ("rotate", rotate_op, _rotate_with, False),
        ("rotate_all", rotate_all_op, _rotate_all_with, True),
    )
)
