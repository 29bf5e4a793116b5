"""Resampled crops in plain torch: the specification."""

import torch

from kernels import normalize, tensors


def _axis(start, length, limit, size):
    """Returns the pixels of a box's side, a slice, and the weight of each in each output, [size, pixels]."""
    first = min(max(start, 0), limit - 1)
    pixels = range(first, min(max(start + length, first + 1), limit))
    p, i, n = torch.arange(len(pixels)), torch.arange(size)[:, None], len(pixels)
    weights = 2 * max(n, size) - ((2 * p + 1) * size - (2 * i + 1) * n).abs()
    return slice(pixels.start, pixels.stop), weights.clamp(min=0).double()


def compute(images, regions, flips, boxes, size, mean, std, dtype, channels_last) -> torch.Tensor:
    """Computes what `crop_flip` returns; images is uint8 [n], and regions is always given."""
    c = len(mean)
    out = tensors.allocate(images, (regions.shape[0], c, size, size), dtype, channels_last)
    for image, (y, x, height, width) in enumerate(tensors.as_coordinates(boxes).tolist()):
        start, h, w = regions[image].tolist()
        pixels = images[start : start + h * w * c].reshape(h, w, c)
        rows, down = _axis(y, height, h, size)
        columns, across = _axis(x, width, w, size)
        # float64 holds all these sums exactly, whatever their order
        total = down @ pixels[rows, columns].permute(2, 0, 1).double() @ across.T
        sum_y, sum_x = down.sum(1)[:, None], across.sum(1)
        inverse = (1 / sum_y.float()) * (1 / sum_x.float())
        nearest = (total.float() * inverse + 0.5).floor()
        value = nearest + (total - nearest.double() * (sum_y * sum_x)).float() * inverse
        if dtype == torch.uint8:
            value = (value + 0.5).floor().to(torch.uint8)
        out[image] = normalize.normalize(value.flip(2) if flips[image] else value, mean, std, dtype)
    return out
