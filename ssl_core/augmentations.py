"""Makes random views of an image, of which a representation should keep only what they share: crops and colors."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from kernels.crop_flip import crop_flip, multi_crop
from kernels.photometric import photometric
from kernels.random import randint, uniform
from ssl_core.errors import UserError
from ssl_core.task import InputFormat, crop_side, to_uint8

CROP, COLOR = 5, 10  # random words that a crop, and its colors, take
ASPECT = math.log(4 / 3)  # of a box's sides, at most, either way
BYTES = InputFormat((0.0,) * 3, (1.0,) * 3, torch.uint8).options()  # from one kernel for the next


def as_bhwc(images: Tensor) -> Tensor:
    """Returns a view of a kernel's output in the layout that kernels read.

    Args:
        images: [b, c, h, w] uint8 in channels_last memory, as kernels called with BYTES return.

    Returns:
        [b, h, w, c] uint8, the same memory.
    """
    return images.permute(0, 2, 3, 1)


def random_boxes(images: Tensor, words: Tensor, min_area: float, max_area: float = 1.0) -> tuple[Tensor, Tensor]:
    """Draws random boxes in images, and whether each is mirrored, as the kernels in `kernels.crop_flip` take them.

    A box has a share of the image's area between `min_area` and `max_area`, an aspect ratio of 3/4 to 4/3 and a random
    place; if it is longer than the image, it is cut off there. Source: random resized crops (Szegedy et al. 2015,
    arXiv:1409.4842).

    Args:
        images: [b, h, w, 3] uint8.
        words: [..., CROP] int64, random words in [0, 2^32).
        min_area: Smallest share of an image's area.
        max_area: Largest share of it.

    Returns:
        [...] int64, 1 where the box is mirrored; and [..., 4] int64 (y, x, height, width), in pixels.
    """
    high, wide = images.shape[1:3]
    # in float64, where a GPU's exp rounds to the pixel that a CPU's does
    share, aspect = (uniform(words[..., i]).double() for i in (0, 1))
    length = (high * wide * (min_area + (max_area - min_area) * share)).sqrt()
    stretch = (ASPECT * (aspect - 0.5)).exp()
    height = (length * stretch).round().clamp(1, high).long()
    width = (length / stretch).round().clamp(1, wide).long()
    y, x = randint(words[..., 2], high - height + 1), randint(words[..., 3], wide - width + 1)
    return randint(words[..., 4], 2), torch.stack([y, x, height, width], dim=-1)


def resized_crop(images: Tensor, words: Tensor, side: int, min_area: float, max_area: float = 1.0) -> Tensor:
    """Cuts a random box out of each image, see `random_boxes`, and resizes it to a square, half of them mirrored.

    Args:
        images: [b, h, w, 3] uint8.
        words: [b, CROP] int64, random words in [0, 2^32).
        side: Side of the result in pixels.
        min_area: Smallest share of an image's area.
        max_area: Largest share of it.

    Returns:
        [b, side, side, 3] uint8.
    """
    return as_bhwc(crop_flip(images, *random_boxes(images, words, min_area, max_area), size=side, **BYTES))


class RandomCrops(NamedTuple):
    """Random crops of one size, as `resized_crops` makes them.

    Attributes:
        side: Of the crops, in pixels.
        min_area: Smallest share of an image's area.
        max_area: Largest share of it.
        count: How many of an image.
    """

    side: int
    min_area: float
    max_area: float = 1.0
    count: int = 1


def resized_crops(images: Tensor, words: Tensor, crops: Sequence[RandomCrops]) -> list[Tensor]:
    """Cuts several random boxes out of each image and resizes them to several sizes, as `resized_crop` does to one.

    Args:
        images: [b, h, w, 3] uint8.
        words: [b, n, CROP] int64, random words in [0, 2^32), n being the sum of counts.
        crops: What crops of each size to make.

    Returns:
        [b * count, side, side, 3] uint8 for each size, an image's crops one after the other.
    """
    sizes, counts = [each.side for each in crops], [each.count for each in crops]
    parts = zip(words.split(counts, dim=1), crops)
    drawn = [random_boxes(images, part, each.min_area, each.max_area) for part, each in parts]
    flips, boxes = (torch.cat(labels, dim=1) for labels in zip(*drawn))
    return [as_bhwc(made) for made in multi_crop(images, flips, boxes, sizes=sizes, counts=counts, **BYTES)]


@dataclass(frozen=True, kw_only=True)
class ContrastiveAugmentation:
    """Makes random resized crops, mirrored or not, with other colors, as SimCLR does for CIFAR-10, without blur.

    Source: Chen et al. 2020, arXiv:2002.05709.
    """

    crop: float = 0.75
    """side that a random crop is resized to, as a fraction of the image's"""
    min_area: float = 0.2
    """smallest share of the image that a random crop shows"""
    jitter: float = 0.5
    """strength of the color jitter: brightness, contrast and saturation change by up to 0.8 times that, hue by 0.2"""
    grayscale: float = 0.2
    """share of views that lose their color"""

    def side(self, size: int, multiple: int = 1) -> int:
        """Returns the side of a view and checks the options.

        Args:
            size: The images' side in pixels.
            multiple: What the view's side has to be a multiple of, see `crop_side`.

        Returns:
            Pixels.

        Raises:
            UserError: If a value is out of its range.
        """
        if not 0 < self.min_area <= 1:
            raise UserError(f"--min-area is {self.min_area}: expected a share of the image, above 0 and at most 1")
        if not 0 <= self.jitter <= 1 or not 0 <= self.grayscale <= 1:
            raise UserError(f"--jitter is {self.jitter} and --grayscale {self.grayscale}: expected 0 to 1")
        return crop_side(self.crop, size, multiple)

    def color(self, images: Tensor, words: Tensor, format: InputFormat) -> Tensor:
        """Changes the colors of four in five images, makes some gray, and normalizes all.

        Args:
            images: [b, h, w, 3] uint8.
            words: [b, COLOR] int64, random words in [0, 2^32).
            format: The wanted statistics, dtype and memory layout.

        Returns:
            [b, 3, h, w] of the format's dtype.
        """
        chance = uniform(words[:, :6])
        change = self.jitter * (chance[:, 4:5] < 0.8) * (2 * chance[:, :4] - 1)
        factors = torch.cat([1 + 0.8 * change[:, :3], 0.2 * change[:, 3:]], dim=1)
        grays = (chance[:, 5] < self.grayscale).long()
        return photometric(images, factors, words[:, 6:].argsort(dim=1, stable=True), grays, **format.options())

    def view(self, images: Tensor, words: Tensor, side: int, format: InputFormat) -> Tensor:
        """Makes random views of each image: resized crops with other colors, normalized.

        Args:
            images: [b, h, w, 3] uint8.
            words: [b, n * (CROP + COLOR)] int64, random words in [0, 2^32), for n views of each image.
            side: Side of the views in pixels.
            format: The wanted statistics, dtype and memory layout.

        Returns:
            [b * n, 3, side, side] of the format's dtype, an image's views one after the other.
        """
        words = words.unflatten(1, (-1, CROP + COLOR))
        [crops] = resized_crops(images, words[..., :CROP], [RandomCrops(side, self.min_area, count=words.shape[1])])
        return self.color(crops, words[..., CROP:].flatten(0, 1), format)


def view_pictures(inputs: Tensor, cosines: Tensor) -> list[tuple[Tensor, str]]:
    """Returns pictures of each image's two views side by side, with their cosine.

    Args:
        inputs: [2 b, 3, h, w] of any normalization, an image's views one after the other.
        cosines: [b].
    """
    pairs = to_uint8(inputs).unflatten(0, (-1, 2)).transpose(1, 2).flatten(2, 3)
    return [(pair, f"two views, cosine {cosine:.2f}") for pair, cosine in zip(pairs, cosines.tolist())]
