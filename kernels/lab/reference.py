"""Lightness and color bins in plain torch: the specification."""

import torch

from kernels import normalize, tensors
from kernels.lab import tables


def _interpolate(table, light):
    place = (light * (tables.KNOTS / tables.ONE)).clamp(max=tables.KNOTS)
    knot = place.to(torch.int64).clamp(max=tables.KNOTS - 1)
    return table[knot] + (table[knot + 1] - table[knot]) * (place - knot.float())


def _weigh(light, weights):
    red, green, blue = light.float().unbind(0)
    return red * weights[0] + green * weights[1] + blue * weights[2]


def _square(value):
    return (value * (1 / tables.STEP) + (tables.REACH + 0.5)).to(torch.int64).clamp(0, tables.SIDE - 1)


def compute(images, flips, offsets, size, cell, mean, std, dtype, channels_last) -> tuple[torch.Tensor, torch.Tensor]:
    """Computes what `lab` returns, of the same arguments."""
    b, h, w, c = images.shape
    n = size // cell
    lightness = tensors.allocate(images, (b, c, size, size), dtype, channels_last)
    bins = torch.empty(b, n, n, dtype=torch.int64, device=images.device)
    linear, root, light_table, numbers = tables.on_device(images.device)
    for image in range(b):
        y, x = min(max(int(offsets[image, 0]), 0), h - size), min(max(int(offsets[image, 1]), 0), w - size)
        window = images[image, y : y + size, x : x + size].permute(2, 0, 1)
        light = linear[(window.flip(2) if flips[image] else window).long()]  # int32 [3, size, size]
        pixels = _interpolate(light_table, _weigh(light, tables.WEIGHTS[1])).expand(c, size, size)
        if dtype == torch.uint8:
            pixels = (pixels + 0.5).floor().to(torch.uint8)
        lightness[image] = normalize.normalize(pixels, mean, std, dtype)
        sums = light.long().unflatten(2, (n, cell)).unflatten(1, (n, cell)).sum((2, 4))
        means = sums.float() * normalize.float32(1 / cell**2)
        fx, fy, fz = (_interpolate(root, _weigh(means, weights)) for weights in tables.WEIGHTS)
        bins[image] = numbers[_square((fx - fy) * 500) * tables.SIDE + _square((fy - fz) * 200)]
    return lightness, bins
