"""Erased windows on a CPU: a compiled loop over the images."""

import numpy as np
import torch

from kernels import cpu_threads, tensors
from kernels.cpu_jit import jit_loop
from kernels.cpu_output import COMPUTED, make_normalization, pack
from kernels.cpu_planes import scratch, unpack
from kernels.erase import outputs


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
    """Writes to masked the target where the mask is 0, each channel's fill elsewhere."""
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
def _pack_both(planes, normalization, fill, mask, target, masked, origin):
    """Writes both images in float32 NCHW: values are computed once, in registers, for the two."""
    size, hidden = mask.shape[0], mask.reshape(-1)
    run = size * size if planes.shape[1] == size else size
    for channel in range(planes.shape[0]):
        mean, scale, value = normalization.means[channel], normalization.scales[channel], fill[channel]
        pixels, first = planes[channel].reshape(-1), np.uint64(origin + channel * size * size)
        for i in range(size * size // run):
            p, k = np.uint64(i * planes.shape[1]), np.uint64(i * run)
            for j in range(run):
                whole = (np.float32(pixels[p + np.uint64(j)]) - mean) * scale
                target[first + k + np.uint64(j)] = whole
                masked[first + k + np.uint64(j)] = value if hidden[k + np.uint64(j)] != 0 else whole


@jit_loop
def erase_rows(
    first,
    last,
    images,
    shape,
    flips,
    offsets,
    boxes,
    field,
    levels,
    channels_last,
    normalization,
    fill,
    masked,
    target,
    mask,
):
    """Computes the images first..last-1 of the outputs.

    Args:
        first: The first image.
        last: The image behind the last.
        images: The bytes of uint8 [b, h, w, c].
        shape: (b, h, w, c).
        flips: int64 [b].
        offsets: int64 [b, 2].
        boxes: int64 [b, n, 4].
        field: int64 [b, g, g].
        levels: int64 [b].
        channels_last: Whether the outputs are in that memory order.
        normalization: A `Normalization`.
        fill: [c], what an erased pixel becomes, of the type of masked.
        masked: The memory of [b, c, size, size].
        target: The memory of [b, c, size, size].
        mask: uint8 [b, size, size].
    """
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
        if normalization.kind == COMPUTED and not interleaved:
            _pack_both(planes, normalization, fill, mask[image], target, masked, origin)
            continue
        pack(planes, 0, size, channels_last, normalization, target, origin)
        _fill_erased(mask[image], interleaved, fill, target, masked, origin)


def run(
    images, flips, offsets, boxes, field, levels, size, mean, std, dtype, channels_last
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Runs the compiled loop; arguments and result as those of the reference."""
    masked, target, mask = outputs.allocate(images, size, dtype, channels_last)
    normalization = make_normalization(mean, std, dtype)
    cpu_threads.parallel_rows(
        erase_rows,
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
        normalization,
        np.array(outputs.fill_values(mean, dtype), normalization.table.dtype),
        tensors.as_flat_array(masked),
        tensors.as_flat_array(target),
        tensors.as_flat_array(mask).reshape(-1, size, size),
    )
    return masked, target, mask
