"""Decoding into crops: which part of an image is asked for, and how several are cut in one launch."""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kernels.crop_flip import crop_flip
from kernels.sampling import Draw, uniform
from ssl_core.data.decode import UNREADABLE, decode, square
from ssl_core.data.order import Stream
from ssl_core.data.source import Encoded

MIN_SCALE = 0.25  # of the largest square's area: how small a training crop may be
KEPT = 2**26  # bytes of a buffer that are worth keeping for the next images


class Wanted(NamedTuple):
    """One image of a batch and the part of it to show: (scale, y, x) as `square` takes them, None for the centre."""

    id: int
    epoch: int
    box: tuple[float, float, float] | None


def drawn(order: Stream, positions: np.ndarray) -> list[Wanted]:
    """The images at these positions, each with the box that its id and epoch draw, whoever reads it."""
    ids, epochs = order.at(positions)
    words = Draw(torch.from_numpy(ids), torch.from_numpy(epochs), order.seed).words("crop", 3)
    scale, y, x = uniform(words).double().unbind(1)
    boxes = zip((MIN_SCALE + (1 - MIN_SCALE) * scale).tolist(), y.tolist(), x.tolist())
    return [Wanted(int(id), int(epoch), box) for id, epoch, box in zip(ids, epochs, boxes)]


def least(size: int, wanted: Wanted) -> int:
    """How small an image's shorter side may be decoded: such that no crop of it, whichever is drawn, is enlarged for
    that. All loaders keep to it, so that an image is as sharp from one as from another."""
    return math.ceil(size / MIN_SCALE**0.5) if wanted.box else size


class Buffer:
    """Decoded images of any shape, one after the other in memory that is used again."""

    def __init__(self):
        self.memory = np.empty(0, np.uint8)
        self.clear()

    def clear(self) -> None:
        """Forgets the images."""
        self.places: list[tuple[int, int, int]] = []  # offset, height, width
        self.end = 0
        if len(self.memory) > KEPT:
            self.memory = np.empty(0, np.uint8)

    def room(self, height: int, width: int) -> np.ndarray:
        """[height, width, 3] for the next image, which is there once it is kept."""
        need = self.end + height * width * 3
        if need > len(self.memory):
            larger = np.empty(need + need // 2, np.uint8)
            larger[: self.end] = self.memory[: self.end]
            self.memory = larger
        return self.memory[self.end : need].reshape(height, width, 3)

    def keep(self, height: int, width: int) -> None:
        """What was put into the last room(height, width) is an image."""
        self.places.append((self.end, height, width))
        self.end += height * width * 3

    def drop(self) -> None:
        """Forgets the last image; its memory is free for the next."""
        self.end = self.places.pop()[0]

    def add(self, split: Encoded, wanted: Wanted, size: int) -> str | None:
        """Decodes an image for a crop of side `size`; if that fails, it becomes one black pixel -> the reason."""
        try:
            self.keep(*decode(partial(split.open, wanted.id), least(size, wanted), self.room))
        except UNREADABLE as error:
            self.room(1, 1)[:] = 0
            self.keep(1, 1)
            return str(error) or type(error).__name__
        return None


def cut(images: Tensor, places: Tensor, wanted: Sequence[Wanted], size: int) -> Tensor:
    """[b, size, size, 3] uint8: the part that each of `wanted` asks for.

    images: flat uint8; places [b, 3] int64 on the CPU: where in it, and how high and wide, the image of each is.
    """
    boxes = [square(height, width, one.box) for (_, height, width), one in zip(places.tolist(), wanted)]
    moved = (t.to(images.device, non_blocking=True) for t in (places, torch.tensor(boxes).view(-1, 4)))
    places, boxes = moved
    none = torch.zeros(len(wanted), dtype=torch.uint8, device=images.device)
    out = crop_flip(images, none, boxes, places=places, size=size, mean=(0.0,) * 3, std=(1.0,) * 3,
                    dtype=torch.uint8, channels_last=True)  # fmt: skip
    return out.permute(0, 2, 3, 1)
