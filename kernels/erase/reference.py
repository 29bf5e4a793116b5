"""Erased windows in plain torch: the specification."""

import torch

from kernels import normalize, tensors
from kernels.erase import outputs


def _mask(boxes, field, level, size):
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


def compute(
    images, flips, offsets, boxes, field, levels, size, mean, std, dtype, channels_last
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Computes what `erase` returns, of the same arguments."""
    b, h, w, _ = images.shape
    fill = torch.tensor(outputs.fill_values(mean, dtype), dtype=dtype).view(-1, 1, 1)
    masked, target, mask = outputs.allocate(images, size, dtype, channels_last)
    for k in range(b):
        y, x = min(max(int(offsets[k, 0]), 0), h - size), min(max(int(offsets[k, 1]), 0), w - size)
        window = images[k, y : y + size, x : x + size].permute(2, 0, 1)
        target[k] = normalize.normalize(window.flip(2) if flips[k] else window, mean, std, dtype)
        mask[k] = _mask(tensors.as_coordinates(boxes[k]), field[k].long(), int(levels[k]), size)
        masked[k] = torch.where(mask[k] != 0, fill, target[k])
    return masked, target, mask
