"""torch.compile on formulations it can fuse: gathers whose index is computed, where plain torch would copy groups."""

import torch

from benchmarks import eager
from benchmarks.work import MEAN, STD


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
        lambda images, turns: eager.normalise(_turned(images, turns), MEAN, STD, w.dtype, w.channels_last),
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
