"""The rotations in plain torch: the specification."""

import torch

from kernels import normalize, tensors


def compute(images, rotations, flips, offsets, every, size, mean, std, dtype, channels_last) -> torch.Tensor:
    """Computes what `rotate` returns or, if `every`, what `rotate_all` does, whatever the rotations are then."""
    b, h, w, c = images.shape
    out = tensors.allocate(images, (4 * b if every else b, c, size, size), dtype, channels_last)
    for row in range(out.shape[0]):
        image, rotation = divmod(row, 4) if every else (row, int(rotations[row]) & 3)
        y, x = min(max(int(offsets[image, 0]), 0), h - size), min(max(int(offsets[image, 1]), 0), w - size)
        window = images[image, y : y + size, x : x + size].permute(2, 0, 1)
        window = window.flip(2) if flips[image] else window
        out[row] = normalize.normalize(window.rot90(rotation, (1, 2)), mean, std, dtype)
    return out
