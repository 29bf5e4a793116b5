"""Random views of an image, of which a representation should keep only what they share: crops and colors."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.crop_flip import crop_flip
from kernels.photometric import photometric
from kernels.random import randint, uniform
from ssl_core.errors import UserError
from ssl_core.task import InputFormat, crop_side

CROP, COLOR = 5, 10  # random words that a crop, and its colors, take
ASPECT = math.log(4 / 3)  # of a box's sides, at most, either way
BYTES = InputFormat((0.0,) * 3, (1.0,) * 3, torch.uint8).options()  # from one kernel for the next


def as_bhwc(images: Tensor) -> Tensor:
    """What a kernel left as BYTES say, [b, c, h, w] uint8 in channels_last memory, -> [b, h, w, c], as kernels read."""
    return images.permute(0, 2, 3, 1)


def resized_crop(images: Tensor, words: Tensor, side: int, min_area: float) -> Tensor:
    """[b, h, w, 3] uint8, [b, CROP] words -> [b, side, side, 3] uint8: a box of `min_area` to all of each image's area,
    an aspect ratio of 3/4 to 4/3 and a random place, resized, half of them mirrored (Szegedy et al. 2015,
    arXiv:1409.4842). A box that is longer than the image is cut off there."""
    high, wide = images.shape[1:3]
    # in float64, where a GPU's exp rounds to the pixel that a CPU's does
    share, aspect = (uniform(words[:, i]).double() for i in (0, 1))
    length = (high * wide * (min_area + (1 - min_area) * share)).sqrt()
    stretch = (ASPECT * (aspect - 0.5)).exp()
    height = (length * stretch).round().clamp(1, high).long()
    width = (length / stretch).round().clamp(1, wide).long()
    y, x = randint(words[:, 2], high - height + 1), randint(words[:, 3], wide - width + 1)
    boxes = torch.stack([y, x, height, width], dim=1)
    return as_bhwc(crop_flip(images, randint(words[:, 4], 2), boxes, size=side, **BYTES))


@dataclass(frozen=True, kw_only=True)
class ContrastiveAugmentation:
    """Random resized crops, mirrored or not, with other colors: as in SimCLR (Chen et al. 2020, arXiv:2002.05709)
    for CIFAR-10, which leaves blur out."""

    crop: float = 0.75
    """side that a random crop is resized to, as a fraction of the image's"""
    min_area: float = 0.2
    """smallest share of the image that a random crop shows"""
    jitter: float = 0.5
    """strength of the color jitter: brightness, contrast and saturation change by up to 0.8 times that, hue by 0.2"""
    grayscale: float = 0.2
    """share of views that lose their color"""

    def side(self, size: int) -> int:
        """Of a view in pixels. Raises UserError for values that cannot work."""
        if not 0 < self.min_area <= 1:
            raise UserError(f"--min-area is {self.min_area}: expected a share of the image, above 0 and at most 1")
        if not 0 <= self.jitter <= 1 or not 0 <= self.grayscale <= 1:
            raise UserError(f"--jitter is {self.jitter} and --grayscale {self.grayscale}: expected 0 to 1")
        return crop_side(self.crop, size)

    def color(self, images: Tensor, words: Tensor, format: InputFormat) -> Tensor:
        """[b, h, w, 3] uint8, [b, COLOR] words -> [b, 3, h, w] in `format`: four in five jittered, some made gray."""
        chance = uniform(words[:, :6])
        change = self.jitter * (chance[:, 4:5] < 0.8) * (2 * chance[:, :4] - 1)
        factors = torch.cat([1 + 0.8 * change[:, :3], 0.2 * change[:, 3:]], dim=1)
        grays = (chance[:, 5] < self.grayscale).long()
        return photometric(images, factors, words[:, 6:].argsort(dim=1, stable=True), grays, **format.options())

    def view(self, images: Tensor, words: Tensor, side: int, format: InputFormat) -> Tensor:
        """[b, h, w, 3] uint8, [b, CROP + COLOR] words -> [b, 3, side, side] in `format`."""
        return self.color(resized_crop(images, words[:, :CROP], side, self.min_area), words[:, CROP:], format)
