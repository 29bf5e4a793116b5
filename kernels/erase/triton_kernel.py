"""Erased windows on a GPU."""

import torch
import triton.language as tl
from triton import Config

from kernels import normalize, tensors, tuning
from kernels import triton_tiles as tiles
from kernels.erase import outputs
from kernels.triton_jit import jit
from kernels.triton_tiles import join_patches, load_coordinate, patch_columns, patch_rows, store_pixels, store_scaled

TUNABLE = tuning.Tunable(
    "erase",
    (
        Config({"SIDE": 32}, num_warps=2),
        Config({"SIDE": 32}, num_warps=4),
        Config({"SIDE": 16}, num_warps=1),
    ),
)


@jit
def field_axis(index, SIZE: tl.constexpr, G: tl.constexpr):
    """Returns (cell, fraction) of output coordinates on a corner-aligned grid of G, the fraction in 1/256."""
    position = index * ((G - 1) * 256) // max(SIZE - 1, 1)
    grid_cell = tl.minimum(position >> 8, G - 2)
    return grid_cell, position - (grid_cell << 8)


@jit
def erased_pixels(boxes, field, levels, image, i, j, SIZE: tl.constexpr, N: tl.constexpr, G: tl.constexpr):
    """Returns which pixels of a tile are erased.

    Args:
        boxes: Integers [b, N, 4], (y, x, height, width) in pixels of the output window.
        field: Integers [b, G, G], 0..255.
        levels: Integers [b].
        image: Which of the b.
        i: Rows of pixels in the window, at least 0.
        j: Columns of pixels in the window, at least 0.
        SIZE: The side of the window.
        N: Boxes of an image.
        G: The side of the field; 0 for none.

    Returns:
        bool, whether the pixel (i, j) lies in a box or the field is below the level there; of pixels beyond the window
        it says nothing.
    """
    erased = (i + j) * 0
    rows = i * 0
    columns = j * 0
    for k in range(N):
        box = boxes + 4 * (image * N + k)
        y = load_coordinate(box)
        x = load_coordinate(box + 1)
        bottom = tl.minimum(tl.maximum(y + load_coordinate(box + 2), 0), SIZE).to(tl.int32)
        right = tl.minimum(tl.maximum(x + load_coordinate(box + 3), 0), SIZE).to(tl.int32)
        y = tl.minimum(tl.maximum(y, 0), SIZE).to(tl.int32)
        x = tl.minimum(tl.maximum(x, 0), SIZE).to(tl.int32)
        # a bit for each box, which a pixel's row and its column both have to have
        rows |= ((i >= y) & (i < bottom)).to(tl.int32) << (k % 32)
        columns |= ((j >= x) & (j < right)).to(tl.int32) << (k % 32)
        if k % 32 == 31 or k == N - 1:
            erased |= rows & columns
            rows = i * 0
            columns = j * 0
    if G > 0:
        cy, fy = field_axis(i, SIZE, G)
        cx, fx = field_axis(j, SIZE, G)
        p = field + image * (G * G) + (cy * G + cx)
        above = tl.load(p).to(tl.int32) * (256 - fx) + tl.load(p + 1).to(tl.int32) * fx
        under = tl.load(p + G).to(tl.int32) * (256 - fx) + tl.load(p + G + 1).to(tl.int32) * fx
        value = above * (256 - fy) + under * fy
        erased |= (value < tl.load(levels + image).to(tl.int32) * 65536).to(tl.int32)
    return erased != 0


@jit
def store_patches(target, r, g, b, top, left, SIZE: tl.constexpr, C: tl.constexpr, LAST: tl.constexpr):
    """Stores a tile of pixels, [SIDE / 8, SIDE / 4, 8, 4], in a SIZE x SIZE image; arguments as of `store_pixels`."""
    r = join_patches(r, target)
    g = join_patches(g, target) if C == 3 else r
    b = join_patches(b, target) if C == 3 else r
    store_pixels(target, r, g, b, top, left, SIZE, SIZE, C, LAST)


@jit
def erase_kernel(
    images,
    flips,
    offsets,
    boxes,
    field,
    levels,
    masked,
    target,
    mask,
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
    N: tl.constexpr,
    G: tl.constexpr,
    LAST: tl.constexpr,
    SIDE: tl.constexpr,
):
    """Writes one SIDE x SIDE tile of one window, of its masked copy and of its mask.

    Args:
        images: uint8 [b, h, w, C], contiguous.
        flips: Integers [b].
        offsets: Integers [b, 2].
        boxes: Integers [b, N, 4].
        field: Integers [b, G, G].
        levels: Integers [b].
        masked: Output, [b, C, SIZE, SIZE].
        target: Output, [b, C, SIZE, SIZE], of the same type.
        mask: Output, uint8 [b, 1, SIZE, SIZE].
        m0: Mean of the first channel; for uint8 outputs, what its erased pixels become.
        m1: The same of the second.
        m2: The same of the third.
        s0: 1 / std of the first channel.
        s1: 1 / std of the second.
        s2: 1 / std of the third.
        h: The images' height.
        w: The images' width.
        SIZE: The side of the window, in pixels.
        C: Channels, 1 or 3.
        N: Boxes of an image.
        G: The side of the field; 0 for none.
        LAST: Whether the outputs are in channels_last memory order.
        SIDE: A power of two, at least 16 pixels.
    """
    ACROSS: tl.constexpr = (SIZE + SIDE - 1) // SIDE
    image = (tl.program_id(0) // (ACROSS * ACROSS)).to(tl.int64)
    top = (tl.program_id(0) % (ACROSS * ACROSS) // ACROSS) * SIDE
    left = (tl.program_id(0) % ACROSS) * SIDE
    y = tl.load(offsets + 2 * image).to(tl.int64)
    x = tl.load(offsets + 2 * image + 1).to(tl.int64)
    y = tl.minimum(tl.maximum(y, 0), h - SIZE).to(tl.int32)
    x = tl.minimum(tl.maximum(x, 0), w - SIZE).to(tl.int32)
    flipped = tl.load(flips + image) != 0
    origin = (y * w + x) * C + tl.where(flipped, (SIZE - 1) * C, 0)
    right = tl.where(flipped, -C, C)
    i = patch_rows(top, SIDE)
    j = patch_columns(left, SIDE)
    inside = (i < SIZE) & (j < SIZE)
    p = images + image * h * w * C + (origin + i * (w * C) + j * right)
    r = store_scaled(tl.load(p, mask=inside, other=0), m0, s0, target)
    g = store_scaled(tl.load(p + 1, mask=inside, other=0), m1, s1, target) if C == 3 else r
    b = store_scaled(tl.load(p + 2, mask=inside, other=0), m2, s2, target) if C == 3 else r
    first = image * (SIZE * SIZE * C)
    store_patches(target + first, r, g, b, top, left, SIZE, C, LAST)
    erased = erased_pixels(boxes, field, levels, image, i, j, SIZE, N, G)
    store_patches(mask + image * (SIZE * SIZE), erased, erased, erased, top, left, SIZE, 1, LAST)
    if target.dtype.element_ty != tl.uint8:  # the means' own normalized value
        m0 = 0.0
        m1 = 0.0
        m2 = 0.0
    r = tl.where(erased, m0, r)
    g = tl.where(erased, m1, g)
    b = tl.where(erased, m2, b)
    store_patches(masked + first, r, g, b, top, left, SIZE, C, LAST)


def launch(
    images, flips, offsets, boxes, field, levels, size, mean, std, dtype, channels_last
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Launches the Triton kernel; arguments and result as those of the reference."""
    b, h, w, c = images.shape
    results = outputs.allocate(images, size, dtype, channels_last)
    # The kernel takes a uint8 fill where it takes a float mean.
    means = outputs.fill_values(mean, dtype) if dtype == torch.uint8 else mean
    config = TUNABLE.choose(size, dtype, channels_last, images.device)
    if b:
        with torch.cuda.device_of(images):
            erase_kernel[(b * tiles.num_blocks(size, config["SIDE"]),)](
                images.contiguous(),
                tensors.as_triton_int(flips),
                tensors.as_triton_int(offsets),
                tensors.as_triton_int(boxes),
                tensors.as_triton_int(field),
                tensors.as_triton_int(levels),
                *results,
                *normalize.scalars(means, std),
                h,
                w,
                SIZE=size,
                C=c,
                N=boxes.shape[1],
                G=field.shape[1],
                LAST=channels_last,
                **config,
                enable_fp_fusion=False,
            )
    return results
