"""Transforms images with parameters that are known: the same for every image, or drawn for each and returned.

All functions take [b, s, s, 3] uint8 images and return such; random ones draw from `bits` alone.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from kernels.crop_flip import crop_flip
from kernels.photometric import photometric
from kernels.random import RandomBits, randint, uniform
from ssl_core.augmentations import BYTES, CROP, as_bhwc, random_boxes
from ssl_core.evaluation.transforms import ORDERS, TRANSFORMS, View, blurred, rotated, shuffled

Drawn = Callable[[Tensor, RandomBits], tuple[Tensor, Tensor]]  # images -> the same, transformed; [b, m] float32
BRIGHTNESS = 0.4  # that a factor of brightness differs from 1 by at most, as in SimCLR's distortion at strength 0.5
BLUR = 0.01, 0.06  # standard deviations that are drawn, as shares of the image's side
MIN_AREA = 0.2  # smallest share of an image that a drawn box shows, as in pretraining
SWAPPED = len(ORDERS) - 1  # the order in which each tile goes to the opposite corner

# The kinds and names of `TRANSFORMS`, each with the same parameters for every image: what is drawn at random there is a
# window in the middle, one order of tiles, less brightness and another hue here.
FIXED: dict[str, dict[str, View]] = {
    **TRANSFORMS,
    "crop": {share: lambda x, bits, share=float(share): _center(x, share) for share in ("0.75", "0.5")},
    "jigsaw": {"2x2": lambda x, bits: shuffled(x, torch.full_like(bits.ids, SWAPPED))},
    "color": {
        "brightness": lambda x, bits: recolored(x, brightness=torch.full(x.shape[:1], 1 - BRIGHTNESS)),
        "hue": lambda x, bits: recolored(x, hue=torch.full(x.shape[:1], 0.1)),
    },
}


def crop_to(images: Tensor, boxes: Tensor) -> Tensor:
    """Enlarges a box of each image to the image's size.

    Args:
        images: [b, s, s, 3] uint8.
        boxes: [b, 4] int64 (y, x, height, width), in pixels.

    Returns:
        [b, s, s, 3] uint8.
    """
    return as_bhwc(crop_flip(images, torch.zeros_like(boxes[:, 0]), boxes, size=images.shape[1], **BYTES))


def _center(images: Tensor, share: float) -> Tensor:
    """Enlarges a square in the middle of each image whose side is a share of the image's."""
    window = max(1, round(share * images.shape[1]))
    corner = (images.shape[1] - window) // 2
    box = torch.tensor([corner, corner, window, window], device=images.device)
    return crop_to(images, box.expand(len(images), 4))


def recolored(images: Tensor, brightness: Tensor | None = None, hue: Tensor | None = None) -> Tensor:
    """Changes the brightness, or the hue, of each image.

    Args:
        images: [b, s, s, 3] uint8.
        brightness: [b] float32, factors; None changes none.
        hue: [b] float32, shifts in turns of the color circle, -0.5 to 0.5; None changes none.

    Returns:
        [b, s, s, 3] uint8.
    """
    factors = torch.tensor([1.0, 1.0, 1.0, 0.0]).repeat(len(images), 1)
    for column, values in ((0, brightness), (3, hue)):
        if values is not None:
            factors[:, column] = values
    order = torch.arange(4).expand(len(images), 4)
    grays = torch.zeros(len(images), dtype=torch.int64)
    return as_bhwc(photometric(images, *(each.to(images.device) for each in (factors, order, grays)), **BYTES))


def _box(images: Tensor, bits: RandomBits) -> tuple[Tensor, Tensor]:
    _, boxes = random_boxes(images, bits.draw("box", CROP), MIN_AREA)
    return crop_to(images, boxes), boxes / images.shape[1]


def _brightness(images: Tensor, bits: RandomBits) -> tuple[Tensor, Tensor]:
    factors = 1 + BRIGHTNESS * (2 * uniform(bits.draw("brightness", 1)) - 1)
    return recolored(images, brightness=factors[:, 0]), factors


def _hue(images: Tensor, bits: RandomBits) -> tuple[Tensor, Tensor]:
    turns = uniform(bits.draw("hue", 1)) - 0.5
    return recolored(images, hue=turns[:, 0]), _on_circle(turns)


def _blur(images: Tensor, bits: RandomBits) -> tuple[Tensor, Tensor]:
    shares = BLUR[0] + (BLUR[1] - BLUR[0]) * uniform(bits.draw("blur", 1))
    each = [blurred(image[None], share) for image, share in zip(images, shares[:, 0].tolist())]
    return torch.cat(each), shares


def _rotation(images: Tensor, bits: RandomBits) -> tuple[Tensor, Tensor]:
    turns = randint(bits.draw("rotation", 1), 4)
    return rotated(images, turns[:, 0]), _on_circle(turns / 4)


def _on_circle(turns: Tensor) -> Tensor:
    """Returns the sine and cosine of angles in turns, [b, 1], as [b, 2]: an angle itself jumps at a full turn."""
    return torch.cat([(2 * math.pi * turns).sin(), (2 * math.pi * turns).cos()], 1)


# By parameter. Crop: the box's place, height and width as shares of the image's side; brightness: the factor; hue and
# rotation (a quarter turn): sine and cosine of the angle; blur: the standard deviation as a share of the side.
DRAWN: dict[str, Drawn] = {
    "crop": _box,
    "brightness": _brightness,
    "hue": _hue,
    "blur": _blur,
    "rotation": _rotation,
}
