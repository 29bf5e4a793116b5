"""Decoding into crops: which part of an image is asked for, and how several are cut in one launch."""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from kernels.crop_flip import crop_flip
from kernels.random import RandomBits, uniform
from ssl_core.data.dataset import Encoded
from ssl_core.data.decoding.decode import UNREADABLE, decode
from ssl_core.data.sampler import Sampler

MIN_SCALE = 0.25  # of the largest square's area: how small a training crop may be
CENTER = (1.0, 0.5, 0.5)  # a box: the largest square, in the middle
MAX_KEPT_BYTES = 2**26  # bytes of a buffer that are worth keeping for the next images


@dataclass(frozen=True)
class CropRequest:
    """The images of a batch, and which part of each to show; `whole`: all of the central square."""

    ids: np.ndarray  # [b] int64
    epochs: np.ndarray  # [b] int64
    boxes: np.ndarray  # [b, 3] float64: scale, y and x, as `crop_boxes` takes them
    whole: bool = False

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, start: int, stop: int) -> "CropRequest":
        return CropRequest(self.ids[start:stop], self.epochs[start:stop], self.boxes[start:stop], self.whole)


def min_side(size: int, whole: bool) -> int:
    """How small an image's shorter side may be decoded: such that no crop of side `size`, whichever is drawn, is
    enlarged for that. All loaders keep to it, so that an image is as sharp from one as from another."""
    return size if whole else math.ceil(size / MIN_SCALE**0.5)


def random_crops(order: Sampler, positions: np.ndarray) -> CropRequest:
    """The images at these positions, each with the box that its id and epoch draw, whoever reads it."""
    ids, epochs = order.at(positions)
    boxes = (
        uniform(RandomBits(torch.from_numpy(ids), torch.from_numpy(epochs), order.seed).draw("crop", 3))
        .double()
        .numpy()
    )
    boxes[:, 0] = MIN_SCALE + (1 - MIN_SCALE) * boxes[:, 0]
    return CropRequest(ids, epochs, boxes)


def center_crops(ids: np.ndarray) -> CropRequest:
    """The whole central square of each."""
    return CropRequest(ids, np.zeros_like(ids), np.tile(CENTER, (len(ids), 1)), whole=True)


def crop_boxes(heights: np.ndarray, widths: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """[b, 4] int64, (y, x, side, side) in pixels: the square that each of `boxes` means in an image of that size.

    scale is its area over that of the largest square; y and x in [0, 1) place it. It keeps the aspect: stretching
    along one axis before a rotation would give the rotation away.
    """
    scale, y, x = boxes.T
    sides = np.maximum(1, np.rint(np.minimum(heights, widths) * scale**0.5))
    found = (np.floor((heights - sides + 1) * y), np.floor((widths - sides + 1) * x), sides, sides)
    return np.stack(found, axis=1).astype(np.int64)


class Buffer:
    """Decoded images of any shape, one after the other in memory that is used again."""

    def __init__(self):
        self.memory = np.empty(0, np.uint8)
        self.clear()

    def clear(self) -> None:
        """Forgets the images."""
        self.regions: list[tuple[int, int, int]] = []  # offset, height, width
        self.end = 0
        if len(self.memory) > MAX_KEPT_BYTES:
            self.memory = np.empty(0, np.uint8)

    def reserve(self, height: int, width: int) -> np.ndarray:
        """[height, width, 3] for the next image, which is there once it is appended."""
        need = self.end + height * width * 3
        if need > len(self.memory):
            larger = np.empty(need + need // 2, np.uint8)
            larger[: self.end] = self.memory[: self.end]
            self.memory = larger
        return self.memory[self.end : need].reshape(height, width, 3)

    def append(self, height: int, width: int) -> None:
        """What was put into the last reserve(height, width) is an image."""
        self.regions.append((self.end, height, width))
        self.end += height * width * 3

    def pop(self) -> None:
        """Forgets the last image; its memory is free for the next."""
        self.end = self.regions.pop()[0]

    def decode(self, split: Encoded, id: int, min_side: int) -> str | None:
        """Decodes image `id` as `decode` does; if that fails, it becomes one black pixel -> the reason."""
        try:
            self.append(*decode(partial(split.open, id), min_side, self.reserve, split.levels))
        except UNREADABLE as error:
            self.reserve(1, 1)[:] = 0
            self.append(1, 1)
            return str(error) or type(error).__name__
        return None


def crop_resize(images: Tensor, regions: np.ndarray, boxes: np.ndarray, size: int) -> Tensor:
    """[b, size, size, 3] uint8: the square of each image that its box means.

    images: flat uint8; regions [b, 3] int64: where in it, and how high and wide, each image is; boxes as for
    `crop_boxes`.
    """
    pixels = crop_boxes(regions[:, 1], regions[:, 2], boxes)
    tensors = [torch.from_numpy(values).to(images.device, non_blocking=True) for values in (regions, pixels)]
    none = torch.zeros(len(regions), dtype=torch.uint8, device=images.device)
    out = crop_flip(
        images,
        none,
        tensors[1],
        regions=tensors[0],
        size=size,
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        dtype=torch.uint8,
        channels_last=True,
    )
    return out.permute(0, 2, 3, 1)
