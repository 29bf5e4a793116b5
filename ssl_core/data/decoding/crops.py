"""Crops of encoded images: which part of an image is wanted, and how those of a batch are cut in one launch."""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from kernels.crop_flip import crop_flip
from kernels.random import RandomBits, uniform
from ssl_core.data.decoding.decode import UNREADABLE, decode
from ssl_core.data.sampler import Sampler
from ssl_core.data.split import Split
from ssl_core.errors import reason_of

MIN_AREA = 0.25  # of the largest square: how small a training crop may be, if nothing else is asked for
CENTER = (1.0, 0.5, 0.5)  # a box: the largest square, in the middle
MAX_KEPT_BYTES = 2**26  # bytes of a buffer that are worth keeping for the next images


@dataclass(frozen=True)
class CropRequest:
    """The images of a batch, and which part of each is wanted.

    Attributes:
        ids: [b] int64.
        epochs: [b] int64.
        boxes: [b, 3] float64: scale, y and x, as `crop_boxes` takes them.
        min_area: The smallest area that a part may have, as a share of the largest square's: the larger, the smaller
            an image may be decoded.
    """

    ids: np.ndarray
    epochs: np.ndarray
    boxes: np.ndarray
    min_area: float

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, start: int, stop: int) -> "CropRequest":
        """Returns the request for the images from row `start` up to `stop`."""
        return CropRequest(self.ids[start:stop], self.epochs[start:stop], self.boxes[start:stop], self.min_area)


def min_side(size: int, min_area: float) -> int:
    """Returns how short an image's shorter side may be decoded so that no crop has to be enlarged for that.

    All loaders keep to it, so that an image is as sharp from one as from another.

    Args:
        size: The side of the crops in pixels.
        min_area: The smallest area of a crop, as a share of the largest square's.

    Returns:
        Pixels.
    """
    return math.ceil(size / min_area**0.5)


def random_crops(order: Sampler, positions: np.ndarray, min_area: float = MIN_AREA) -> CropRequest:
    """Draws random crops by the images' ids and epochs, so that they are the same in whichever worker or loader.

    Args:
        order: The order of the images.
        positions: [b] int64, positions in it.
        min_area: The smallest area of a crop, as a share of the largest square's.

    Returns:
        The request for the images at these positions.
    """
    ids, epochs = order.at(positions)
    boxes = (
        uniform(RandomBits(torch.from_numpy(ids), torch.from_numpy(epochs), order.seed).draw("crop", 3))
        .double()
        .numpy()
    )
    boxes[:, 0] = min_area + (1 - min_area) * boxes[:, 0]
    return CropRequest(ids, epochs, boxes, min_area)


def center_crops(ids: np.ndarray) -> CropRequest:
    """Returns the request for the whole central squares of the images `ids`, [b] int64."""
    return CropRequest(ids, np.zeros_like(ids), np.tile(CENTER, (len(ids), 1)), min_area=1.0)


def crop_boxes(heights: np.ndarray, widths: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Computes the square in pixels that each box stands for in an image of a given size.

    A square keeps the aspect: stretching along one axis before a rotation would reveal the rotation.

    Args:
        heights: [b] integers, pixels.
        widths: [b] integers, pixels.
        boxes: [b, 3] float64: scale, the square's area over that of the largest one; y and x in [0, 1), its place.

    Returns:
        [b, 4] int64: y, x, side and side again, in pixels.
    """
    scale, y, x = boxes.T
    sides = np.maximum(1, np.rint(np.minimum(heights, widths) * scale**0.5))
    found = (np.floor((heights - sides + 1) * y), np.floor((widths - sides + 1) * x), sides, sides)
    return np.stack(found, axis=1).astype(np.int64)


class Buffer:
    """Holds decoded images of any shape, one after the other in memory that is used again.

    Attributes:
        memory: Flat uint8, longer than what is used.
        regions: Offset in `memory`, height and width of each image.
        end: How much of `memory` is used.
    """

    def __init__(self):
        self.memory = np.empty(0, np.uint8)
        self.clear()

    def clear(self) -> None:
        """Removes all images."""
        self.regions: list[tuple[int, int, int]] = []  # offset, height, width
        self.end = 0
        if len(self.memory) > MAX_KEPT_BYTES:
            self.memory = np.empty(0, np.uint8)

    def reserve(self, height: int, width: int) -> np.ndarray:
        """Returns uint8 memory, [height, width, 3], to write the next image to; `append` then adds it."""
        need = self.end + height * width * 3
        if need > len(self.memory):
            larger = np.empty(need + need // 2, np.uint8)
            larger[: self.end] = self.memory[: self.end]
            self.memory = larger
        return self.memory[self.end : need].reshape(height, width, 3)

    def append(self, height: int, width: int) -> None:
        """Adds the image that was written to the last `reserve` of this height and width."""
        self.regions.append((self.end, height, width))
        self.end += height * width * 3

    def pop(self) -> None:
        """Removes the last image; its memory is free for the next."""
        self.end = self.regions.pop()[0]

    def decode(self, split: Split, id: int, min_side: int) -> str | None:
        """Decodes and adds an image, or one black pixel if it cannot be decoded.

        Args:
            split: The images.
            id: Row of the image in it.
            min_side: As for the function `decode`.

        Returns:
            Why it could not be decoded, or None.

        Raises:
            StorageError: If the images' store fails.
        """
        try:
            self.append(*decode(partial(split.open, id), min_side, self.reserve, split.levels))
        except UNREADABLE as error:
            self.reserve(1, 1)[:] = 0
            self.append(1, 1)
            return reason_of(error)
        return None


def crop_resize(images: Tensor, regions: np.ndarray, boxes: np.ndarray, size: int) -> Tensor:
    """Cuts a square from each image and resizes it with antialiasing, all in one launch.

    Args:
        images: Flat uint8, all images one after the other, on any device.
        regions: [b, 3] int64: offset in `images`, height and width of each image.
        boxes: [b, 3] float64: scale, y and x, as for `crop_boxes`.
        size: The new side in pixels.

    Returns:
        [b, size, size, 3] uint8 on the same device.
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
