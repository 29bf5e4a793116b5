"""Crop, flip, erase and normalize: a context encoder's masked input, target and mask in one launch."""

import numpy as np
import torch
import triton
import triton.language as tl

from kernels import checks, cpu_threads, normalize, registry, tensors
from kernels import triton_tiles as tiles
from kernels.cpu_jit import jit_loop
from kernels.cpu_planes import COMPUTED, make_normalization, pack, scratch, unpack
from kernels.examples import POINTERS, SCALES, image_batches, integers
from kernels.triton_tiles import SIDE, load_coordinate, store_pixels, store_scaled

WARPS = 2  # of a program: a thread has sixteen pixels


@triton.jit
def field_axis(index, SIZE: tl.constexpr, G: tl.constexpr):
    """(cell, fraction) of output coordinates on a corner-aligned grid of G, the fraction in 1/256."""
    position = index * ((G - 1) * 256) // max(SIZE - 1, 1)
    grid_cell = tl.minimum(position >> 8, G - 2)
    return grid_cell, position - (grid_cell << 8)


@triton.jit
def erased_pixels(boxes, field, levels, image, i, j, inside, SIZE: tl.constexpr, N: tl.constexpr, G: tl.constexpr):
    """1 where pixel (i, j) of the output window lies in a box or under the field's level."""
    erased = (i + j) * 0
    for k in range(N):
        box = boxes + 4 * (image * N + k)
        y = load_coordinate(box)
        x = load_coordinate(box + 1)
        bottom = tl.minimum(tl.maximum(y + load_coordinate(box + 2), 0), SIZE).to(tl.int32)
        right = tl.minimum(tl.maximum(x + load_coordinate(box + 3), 0), SIZE).to(tl.int32)
        y = tl.minimum(tl.maximum(y, 0), SIZE).to(tl.int32)
        x = tl.minimum(tl.maximum(x, 0), SIZE).to(tl.int32)
        erased |= ((i >= y) & (i < bottom) & (j >= x) & (j < right)).to(tl.int32)
    if G > 0:
        cy, fy = field_axis(i, SIZE, G)
        cx, fx = field_axis(j, SIZE, G)
        p = field + image * (G * G) + (cy * G + cx)
        above = tl.load(p, mask=inside, other=0).to(tl.int32) * (256 - fx)
        above += tl.load(p + 1, mask=inside, other=0).to(tl.int32) * fx
        under = tl.load(p + G, mask=inside, other=0).to(tl.int32) * (256 - fx)
        under += tl.load(p + G + 1, mask=inside, other=0).to(tl.int32) * fx
        value = above * (256 - fy) + under * fy
        erased |= (value < tl.load(levels + image).to(tl.int32) * 65536).to(tl.int32)
    return erased


@triton.jit
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
):
    """A tile of one window, of its masked copy and of its mask."""
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
    i = top + tl.arange(0, SIDE)[:, None]
    j = left + tl.arange(0, SIDE)[None, :]
    inside = (i < SIZE) & (j < SIZE)
    p = images + image * h * w * C + (origin + i * (w * C) + j * right)
    r = store_scaled(tl.load(p, mask=inside, other=0), m0, s0, target)
    g = store_scaled(tl.load(p + 1, mask=inside, other=0), m1, s1, target) if C == 3 else r
    b = store_scaled(tl.load(p + 2, mask=inside, other=0), m2, s2, target) if C == 3 else r
    first = image * (SIZE * SIZE * C)
    store_pixels(target + first, r, g, b, top, left, SIZE, SIZE, C, LAST)
    erased = erased_pixels(boxes, field, levels, image, i, j, inside, SIZE, N, G)
    store_pixels(mask + image * (SIZE * SIZE), erased, erased, erased, top, left, SIZE, SIZE, 1, LAST)
    if target.dtype.element_ty != tl.uint8:  # the means' own normalized value
        m0 = 0.0
        m1 = 0.0
        m2 = 0.0
    r = tl.where(erased != 0, m0, r)
    g = tl.where(erased != 0, m1, g)
    b = tl.where(erased != 0, m2, b)
    store_pixels(masked + first, r, g, b, top, left, SIZE, SIZE, C, LAST)


def _outputs(images, size, dtype, channels_last):
    b, _, _, c = images.shape
    masked, target = (tensors.allocate(images, (b, c, size, size), dtype, channels_last) for _ in range(2))
    return masked, target, tensors.allocate(images, (b, 1, size, size), torch.uint8, channels_last)


def _fill(mean, dtype):
    return [min(max(round(m), 0), 255) if dtype == torch.uint8 else 0 for m in mean]


def _triton(images, flips, offsets, boxes, field, levels, size, mean, std, dtype, channels_last):
    b, h, w, c = images.shape
    outputs = _outputs(images, size, dtype, channels_last)
    # The kernel takes a uint8 fill where it takes a float mean.
    means = _fill(mean, dtype) if dtype == torch.uint8 else mean
    if b:
        with torch.cuda.device_of(images):
            erase_kernel[(b * tiles.num_blocks(size),)](
                images.contiguous(),
                tensors.as_triton_int(flips),
                tensors.as_triton_int(offsets),
                tensors.as_triton_int(boxes),
                tensors.as_triton_int(field),
                tensors.as_triton_int(levels),
                *outputs,
                *normalize.scalars(means, std),
                h,
                w,
                SIZE=size,
                C=c,
                N=boxes.shape[1],
                G=field.shape[1],
                LAST=channels_last,
                num_warps=WARPS,
                enable_fp_fusion=False,
            )
    return outputs


@jit_loop
def _mark_erased(boxes, field, level, columns, fractions, mask):
    size, g = mask.shape[0], field.shape[0]
    mask[:] = 0
    for k in range(boxes.shape[0]):
        y, x, height, width = boxes[k]
        for i in range(max(y, 0), min(y + height, size)):
            for j in range(max(x, 0), min(x + width, size)):
                mask[i, j] = 1
    if g == 0 or level <= 0:
        return
    line = np.empty(g, np.int64)
    for i in range(size):
        for k in range(g):
            line[k] = field[columns[i], k] * (256 - fractions[i]) + field[columns[i] + 1, k] * fractions[i]
        for j in range(size):
            value = line[columns[j]] * (256 - fractions[j]) + line[columns[j] + 1] * fractions[j]
            mask[i, j] |= np.uint8(value < level * 65536)


@jit_loop
def _fill_erased(mask, interleaved, fill, target, masked, origin):
    """The target where the mask is 0, each channel's fill elsewhere."""
    start, one, hidden = np.uint64(origin), np.uint64(1), mask.reshape(-1)
    if interleaved:
        f0, f1, f2 = fill[0], fill[1], fill[2]
        for j in range(len(hidden)):
            k = start + np.uint64(3 * j)
            masked[k] = f0 if hidden[j] != 0 else target[k]
            masked[k + one] = f1 if hidden[j] != 0 else target[k + one]
            masked[k + one + one] = f2 if hidden[j] != 0 else target[k + one + one]
        return
    for channel in range(len(fill)):
        value, first = fill[channel], start + np.uint64(channel * len(hidden))
        for j in range(len(hidden)):
            k = first + np.uint64(j)
            masked[k] = value if hidden[j] != 0 else target[k]


@jit_loop
def _pack_both(planes, tone, fill, mask, target, masked, origin):
    """Both images in float32 NCHW: values are computed once, in registers, for the two."""
    size, hidden = mask.shape[0], mask.reshape(-1)
    run = size * size if planes.shape[1] == size else size
    for channel in range(planes.shape[0]):
        mean, scale, value = tone.means[channel], tone.scales[channel], fill[channel]
        pixels, first = planes[channel].reshape(-1), np.uint64(origin + channel * size * size)
        for i in range(size * size // run):
            p, k = np.uint64(i * planes.shape[1]), np.uint64(i * run)
            for j in range(run):
                whole = (np.float32(pixels[p + np.uint64(j)]) - mean) * scale
                target[first + k + np.uint64(j)] = whole
                masked[first + k + np.uint64(j)] = value if hidden[k + np.uint64(j)] != 0 else whole


@jit_loop
def _cpu_rows(
    first, last, images, shape, flips, offsets, boxes, field, levels, channels_last, tone, fill, masked, target, mask
):
    _, h, w, c = shape
    size, g, planes = mask.shape[1], field.shape[1], scratch(c, mask.shape[1])
    positions = np.arange(size) * ((g - 1) * 256) // max(size - 1, 1)
    columns = np.minimum(positions >> 8, g - 2)
    fractions = positions - (columns << 8)
    for image in range(first, last):
        _mark_erased(boxes[image], field[image], levels[image], columns, fractions, mask[image])
        y = min(max(offsets[image, 0], 0), h - size)
        x = min(max(offsets[image, 1], 0), w - size)
        unpack(images, ((image * h + y) * w + x) * c, w * c, size, False, flips[image] != 0, planes)
        origin = image * c * size * size
        interleaved = channels_last and c == 3
        if tone.kind == COMPUTED and not interleaved:
            _pack_both(planes, tone, fill, mask[image], target, masked, origin)
            continue
        pack(planes, 0, size, channels_last, tone, target, origin)
        _fill_erased(mask[image], interleaved, fill, target, masked, origin)


def _cpu(images, flips, offsets, boxes, field, levels, size, mean, std, dtype, channels_last):
    masked, target, mask = _outputs(images, size, dtype, channels_last)
    colors = make_normalization(mean, std, dtype)
    cpu_threads.parallel_rows(
        _cpu_rows,
        len(target),
        target.numel(),
        tensors.as_flat_array(images.contiguous()),
        tuple(images.shape),
        tensors.as_int64_array(flips),
        tensors.as_int64_array(offsets),
        tensors.as_int64_array(tensors.as_coordinates(boxes)),
        tensors.as_int64_array(field),
        tensors.as_int64_array(levels),
        channels_last,
        colors,
        np.array(_fill(mean, dtype), colors.table.dtype),
        tensors.as_flat_array(masked),
        tensors.as_flat_array(target),
        tensors.as_flat_array(mask).reshape(-1, size, size),
    )
    return masked, target, mask


def _reference_mask(boxes, field, level, size):
    i, g, mask = torch.arange(size), field.shape[0], torch.zeros(size, size, dtype=torch.bool)
    for y, x, height, width in boxes.tolist():
        rows, columns = (i >= y) & (i < y + height), (i >= x) & (i < x + width)
        mask |= rows[:, None] & columns
    if g:
        position = i * (g - 1) * 256 // max(size - 1, 1)
        grid_cell = (position >> 8).clamp(max=g - 2)
        fraction = position - (grid_cell << 8)
        lines = field[grid_cell] * (256 - fraction)[:, None] + field[grid_cell + 1] * fraction[:, None]
        mask |= lines[:, grid_cell] * (256 - fraction) + lines[:, grid_cell + 1] * fraction < level * 65536
    return mask


def _reference(images, flips, offsets, boxes, field, levels, size, mean, std, dtype, channels_last):
    b, h, w, _ = images.shape
    fill = torch.tensor(_fill(mean, dtype), dtype=dtype).view(-1, 1, 1)
    masked, target, mask = _outputs(images, size, dtype, channels_last)
    for k in range(b):
        y, x = min(max(int(offsets[k, 0]), 0), h - size), min(max(int(offsets[k, 1]), 0), w - size)
        window = images[k, y : y + size, x : x + size].permute(2, 0, 1)
        target[k] = normalize.normalize(window.flip(2) if flips[k] else window, mean, std, dtype)
        mask[k] = _reference_mask(tensors.as_coordinates(boxes[k]), field[k].long(), int(levels[k]), size)
        masked[k] = torch.where(mask[k] != 0, fill, target[k])
    return masked, target, mask


@torch.library.custom_op("tilespin::erase", mutates_args=())
def erase_op(
    images: torch.Tensor,
    flips: torch.Tensor,
    offsets: torch.Tensor,
    boxes: torch.Tensor,
    field: torch.Tensor,
    levels: torch.Tensor,
    size: int,
    mean: list[float],
    std: list[float],
    dtype: torch.dtype,
    channels_last: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The operator behind `erase`; its arguments are not checked."""
    run = registry.choose_implementation(_triton, _cpu, images)
    return run(images, flips, offsets, boxes, field, levels, size, mean, std, dtype, channels_last)


@erase_op.register_fake
def _(images, flips, offsets, boxes, field, levels, size, mean, std, dtype, channels_last):
    return _outputs(images, size, dtype, channels_last)


def erase(images, flips, offsets, boxes, field, levels, *, size, mean, std, dtype=torch.float32, channels_last=False):
    """Cut a window from each image, flip it, normalize it, and erase part of a copy.

    images: uint8 [b, h, w, c], c 1 or 3, any strides. The others are integers. flips [b], offsets [b, 2]:
    as for `rotate`. boxes [b, n, 4]: (y, x, height, width) in pixels of the output window, n may be 0.
    field [b, g, g], values 0..255, g = 0 or >= 2, and levels [b], 0..256 (neither range is checked): a pixel
    is erased where field, upsampled bilinearly with aligned corners in integers (8-bit fractions), is below
    its image's level. A pixel is erased if a box or the field says so. mean, std: c floats in pixel units.
    Returns (masked, target, mask): target [b, c, size, size] is the window in dtype (uint8, float32,
    bfloat16 or float16) in NCHW or channels_last memory order; masked is the same with erased pixels 0,
    the mean (round(mean) for uint8); mask [b, 1, size, size] is uint8, 1 where erased.
    Raises ValueError for an argument of another type, shape, device or range.
    Source: context encoders and their mean fill (Pathak et al. 2016, arXiv:1604.07379).
    """
    checks.check_images(images)
    checks.check_size("size", size, images)
    b, device = images.shape[0], images.device
    checks.check_integers("flips", flips, (b,), device)
    checks.check_integers("offsets", offsets, (b, 2), device)
    checks.check_tensor("boxes", boxes)
    if boxes.dim() != 3:
        raise ValueError(f"boxes: got {list(boxes.shape)}; expected [{b}, n, 4]")
    checks.check_integers("boxes", boxes, (b, boxes.shape[1], 4), device)
    checks.check_tensor("field", field)
    if field.dim() != 3 or field.shape[1] == 1 or field.shape[1] * size >= 2**23:
        raise ValueError(f"field: got {list(field.shape)}; expected [{b}, g, g], g 0 or >= 2, g * size < 2^23")
    checks.check_integers("field", field, (b, field.shape[1], field.shape[1]), device)
    checks.check_integers("levels", levels, (b,), device)
    mean, std = checks.check_output(images.shape[3], mean, std, dtype)
    return erase_op(images, flips, offsets, boxes, field, levels, size, mean, std, dtype, channels_last)


def _examples(generator):
    for index, (images, size, mean, std, dtype, last) in enumerate(image_batches(generator)):
        b, g, n = images.shape[0], (0, 2, 5, 3)[index % 4], (2, 0, 1)[index % 3]
        boxes = integers(generator, (b, n, 4), -2, max(size, 3), torch.int16)
        field, levels = integers(generator, (b, g, g), 0, 256, torch.uint8), integers(generator, (b,), 0, 257)
        flips, offsets = integers(generator, (b,), 0, 2, torch.bool), integers(generator, (b, 2), -3, 12)
        yield images, flips, offsets, boxes, field, levels, size, mean, std, dtype, last


def _builds():
    pointers = dict.fromkeys(("flips", "offsets", "boxes", "levels"), "*i64")
    for dtype, g, last, budget in (
        (torch.float32, 0, False, 26),
        (torch.bfloat16, 8, False, 36),
        (torch.bfloat16, 8, True, 50),
        (torch.float32, 8, True, 52),
    ):  # elements are counted once, though the masked and the whole image are both written
        outputs = {"masked": POINTERS[dtype], "target": POINTERS[dtype], "mask": "*u8"}
        yield registry.Build(
            erase_kernel,
            {"images": "*u8", **pointers, "field": "*u8", **outputs, **SCALES, "h": "i32", "w": "i32"},
            {"SIZE": 224, "C": 3, "N": 2, "G": g, "LAST": last},
            warps=WARPS,
            elements=3 * SIDE.value**2,
            budget=budget,
        )


KERNELS = (registry.Kernel("erase", erase_op, _reference, _triton, _cpu, _examples, tuple(_builds())),)
