"""Random views of an image, of which a representation should keep only what they share: crops and colours."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.crop_flip import crop_flip
from kernels.photometric import photometric
from kernels.random import below, uniform
from ssl_core.errors import BadInput
from ssl_core.task import Format, window

CROP, COLOUR = 5, 10  # random words that a crop, and its colours, take
ASPECT = math.log(4 / 3)  # of a box's sides, at most, either way
BYTES = dict(mean=(0.0,) * 3, std=(1.0,) * 3, dtype=torch.uint8, channels_last=True)  # from one kernel for the next


def bytes_of(images: Tensor) -> Tensor:
    """What a kernel left as BYTES say, [b, c, h, w] uint8 in channels_last memory, -> [b, h, w, c], as kernels read."""
    return images.permute(0, 2, 3, 1)


def resized_crop(images: Tensor, words: Tensor, side: int, least: float) -> Tensor:
    """[b, h, w, 3] uint8, [b, CROP] words -> [b, side, side, 3] uint8: a box of `least` to all of each image's area, an
    aspect ratio of 3/4 to 4/3 and a random place, resized, half of them mirrored (Szegedy et al. 2015,
    arXiv:1409.4842). A box that is longer than the image is cut off there."""
    high, wide = images.shape[1:3]
    # in float64, where a GPU's exp rounds to the pixel that a CPU's does
    share, aspect = (uniform(words[:, i]).double() for i in (0, 1))
    length = (high * wide * (least + (1 - least) * share)).sqrt()
    stretch = (ASPECT * (aspect - 0.5)).exp()
    height = (length * stretch).round().clamp(1, high).long()
    width = (length / stretch).round().clamp(1, wide).long()
    y, x = below(words[:, 2], high - height + 1), below(words[:, 3], wide - width + 1)
    boxes = torch.stack([y, x, height, width], dim=1)
    return bytes_of(crop_flip(images, below(words[:, 4], 2), boxes, size=side, **BYTES))


@dataclass(frozen=True, kw_only=True)
class Views:
    """Random resized crops, mirrored or not, with other colours: as in SimCLR (Chen et al. 2020, arXiv:2002.05709)
    for CIFAR-10, which leaves blur out."""

    crop: float = 0.75
    """side that a random crop is resized to, as a fraction of the image's"""
    area: float = 0.2
    """smallest share of the image that a random crop shows"""
    jitter: float = 0.5
    """strength of the colour jitter: brightness, contrast and saturation change by up to 0.8 times that, hue by 0.2"""
    grey: float = 0.2
    """share of views that lose their colour"""

    def side(self, size: int) -> int:
        """Of a view in pixels. Raises BadInput for values that cannot work."""
        if not 0 < self.area <= 1:
            raise BadInput(f"--area is {self.area}: expected a share of the image, above 0 and at most 1")
        if not 0 <= self.jitter <= 1 or not 0 <= self.grey <= 1:
            raise BadInput(f"--jitter is {self.jitter} and --grey {self.grey}: expected 0 to 1")
        return window(self.crop, size)

    def colour(self, images: Tensor, words: Tensor, format: Format) -> Tensor:
        """[b, h, w, 3] uint8, [b, COLOUR] words -> [b, 3, h, w] in `format`: four in five jittered, some made grey."""
        chance = uniform(words[:, :6])
        change = self.jitter * (chance[:, 4:5] < 0.8) * (2 * chance[:, :4] - 1)
        factors = torch.cat([1 + 0.8 * change[:, :3], 0.2 * change[:, 3:]], dim=1)
        greys = (chance[:, 5] < self.grey).long()
        return photometric(images, factors, words[:, 6:].argsort(dim=1, stable=True), greys, **format.options())

    def view(self, images: Tensor, words: Tensor, side: int, format: Format) -> Tensor:
        """[b, h, w, 3] uint8, [b, CROP + COLOUR] words -> [b, 3, side, side] in `format`."""
        return self.colour(resized_crop(images, words[:, :CROP], side, self.area), words[:, CROP:], format)
