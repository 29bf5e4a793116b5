"""torch.compile on formulations it can fuse: gathers whose index is computed, where plain torch would copy groups."""

import torch

from benchmarks.harness.kernel_cases import CELL, MEAN, STD, VIEWS, ab_bins
from benchmarks.peers import eager


def _compiled(function, *arguments):
    torch._dynamo.reset()  # each size is compiled for itself, as if it were the only one
    compiled = torch.compile(function, fullgraph=True, dynamic=False)
    return lambda: compiled(*arguments)


def _turned(images, turns):
    """[b, n, n, c] turned by a gather: where each output pixel comes from."""
    n = images.shape[1]
    i, j = torch.arange(n, device=images.device)[:, None], torch.arange(n, device=images.device)[None]
    k = turns[:, None, None]
    y = torch.where(k == 0, i, torch.where(k == 1, j, torch.where(k == 2, n - 1 - i, n - 1 - j)))
    x = torch.where(k == 0, j, torch.where(k == 1, n - 1 - i, torch.where(k == 2, n - 1 - j, i)))
    return images[torch.arange(len(images), device=images.device)[:, None, None], y, x]


def rotate(w):
    return _compiled(
        lambda images, turns: eager.normalize(_turned(images, turns), MEAN, STD, w.dtype, w.channels_last),
        w.images,
        w.turns,
    )


def rotate_all(w):
    return _compiled(
        lambda images: eager.rotate_all(images, MEAN, STD, dtype=w.dtype, channels_last=w.channels_last), w.images
    )


def shuffle_tiles(w):
    return _compiled(
        lambda *tensors: eager.shuffle_tiles(*tensors, w.tile, w.dtype, w.channels_last),
        w.images,
        w.orders,
        w.corners,
    )


def erase(w):
    return _compiled(
        lambda *tensors: eager.erase(*tensors, MEAN, STD, dtype=w.dtype, channels_last=w.channels_last),
        w.images,
        w.erased,
    )


def _triangle(start, side, limit, size):
    """[b, size, limit]: the weight of each source pixel in each output, for boxes of the given start and side."""
    i = torch.arange(size, device=start.device)[:, None]
    p = torch.arange(limit, device=start.device) - start[:, None, None]
    n = side[:, None, None]
    weights = (2 * torch.clamp(n, min=size) - ((2 * p + 1) * size - (2 * i + 1) * n).abs()).clamp(min=0)
    weights = torch.where((p >= 0) & (p < n), weights, 0).float()
    return weights / weights.sum(2, keepdim=True)


def _resample(w, images, flips, boxes, size):
    """Resampling as two matrix products for each image, which a GPU has the arithmetic for."""
    y, x, height, width = boxes.unbind(1)
    down = _triangle(y, height, w.size, size)
    across = _triangle(x, width, w.size, size)
    across = torch.where(flips[:, None, None] != 0, across.flip(1), across)
    rows = torch.einsum("boh,bhwc->bowc", down, images.float())
    pixels = torch.einsum("bpw,bowc->bopc", across, rows)
    return eager.normalize(pixels, MEAN, STD, w.dtype, w.channels_last)


def crop_flip(w):
    return _compiled(lambda *tensors: _resample(w, *tensors, w.size), w.images, w.flips, w.windows)


def multi_crop(w):
    def call(images, *labels):
        done = []
        for size, count, flips, boxes in zip(w.view_sizes, VIEWS, *(label.split(VIEWS, 1) for label in labels)):
            again = images.repeat_interleave(count, 0)
            done.append(_resample(w, again, flips.flatten(), boxes.flatten(0, 1), size))
        return done

    return _compiled(call, w.images, w.mirrored, w.views)


def _turn_hue(pixels, shift):
    red, green, blue = pixels.unbind(3)
    top, low = pixels.amax(3), pixels.amin(3)
    chroma = torch.where(top > low, top - low, 1)
    blue_top = (red - green) / chroma + 4
    hue = torch.where(top == green, (blue - red) / chroma + 2, blue_top)
    hue = torch.where(top == red, (green - blue) / chroma, hue)
    angle = (hue + shift * 6)[..., None] + torch.tensor([5.0, 3.0, 1.0], device=pixels.device)
    angle = angle % 6
    return top[..., None] - (top - low)[..., None] * torch.minimum(angle, 4 - angle).clamp(0, 1)


def photometric(w):
    """Every step in every place, of which each image keeps its own: no image waits for another's order."""
    luma = torch.tensor([0.2989, 0.587, 0.114], device=w.images.device)

    def jitter(images, factors, order):
        pixels = images.float()
        brightness, contrast, saturation, hue = factors[:, :, None, None].unbind(1)
        for place in range(4):
            step = order[:, place, None, None, None]
            gray = (pixels * luma).sum(3)
            mean = gray.mean((1, 2), keepdim=True)[..., None]
            blends = [
                (pixels * factor[..., None] + other * (1 - factor[..., None])).clamp(0, 255)
                for factor, other in ((brightness, 0.0), (contrast, mean), (saturation, gray[..., None]))
            ]
            turned = _turn_hue(pixels, hue)
            pixels = torch.where(
                step == 0, blends[0], torch.where(step == 1, blends[1], torch.where(step == 2, blends[2], turned))
            )
        return eager.normalize(pixels, MEAN, STD, w.dtype, w.channels_last)

    return _compiled(jitter, w.images, w.factors, w.jitter)


def lab(w):
    return _compiled(
        lambda *tensors: eager.lab(*tensors, CELL, MEAN, STD, dtype=w.dtype, channels_last=w.channels_last),
        w.images,
        ab_bins(w.images.device),
    )
