"""Transforms images in the ways that an encoder's features are compared under, one transform at one strength each.

All functions take and return [b, s, s, 3] uint8 images; random ones take their random numbers from `bits` alone.
"""

import math
from collections.abc import Callable
from itertools import permutations

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.crop_flip import crop_flip
from kernels.photometric import photometric
from kernels.random import RandomBits, randint, uniform
from kernels.rotate import rotate
from kernels.shuffle_tiles import shuffle_tiles
from ssl_core.augmentations import BYTES, CROP, as_bhwc, resized_crop

ORDERS = torch.tensor(list(permutations(range(4))))  # of the tiles of a 2x2 grid; the first is as they were
View = Callable[[Tensor, RandomBits], Tensor]  # [b, s, s, 3] uint8 -> the same, transformed

# By transform and strength. Crops by the side that is left, quarter turns in degrees, color as SimCLR's strength
# (Chen et al. 2020), blur by the standard deviation as a share of the image's side.
TRANSFORMS: dict[str, dict[str, View]] = {
    "crop": {share: lambda x, bits, share=float(share): cropped(x, bits, share) for share in ("0.75", "0.5")},
    "flip": {"mirror": lambda x, bits: x.flip(2)},
    "rotation": {
        str(90 * turns): lambda x, bits, turns=turns: rotated(x, torch.full_like(bits.ids, turns))
        for turns in (1, 2, 3)
    },
    "jigsaw": {"2x2": lambda x, bits: shuffled(x, 1 + randint(bits.draw("jigsaw", 1)[:, 0], len(ORDERS) - 1))},
    "color": {s: lambda x, bits, s=float(s): color_jittered(x, bits, s) for s in ("0.25", "0.5")},
    "blur": {s: lambda x, bits, s=float(s): blurred(x, s) for s in ("0.02", "0.04")},
}


def rotated(images: Tensor, rotations: Tensor) -> Tensor:
    """Turns each image by its number of quarter turns, without resampling.

    Args:
        images: [b, s, s, 3] uint8.
        rotations: [b] int64, 0 to 3, counterclockwise.

    Returns:
        [b, s, s, 3] uint8.
    """
    zeros = torch.zeros_like(rotations)
    return as_bhwc(rotate(images, rotations, zeros, zeros[:, None].expand(-1, 2), size=images.shape[1], **BYTES))


def shuffled(images: Tensor, orders: Tensor) -> Tensor:
    """Puts the 2x2 tiles of each image into another order.

    Args:
        images: [b, s, s, 3] uint8; of an odd side the last row and column stay in place.
        orders: [b] int64, rows of ORDERS, each of which says for every place which tile comes there.

    Returns:
        [b, s, s, 3] uint8.
    """
    tile, b = images.shape[1] // 2, len(images)
    corners = torch.tensor([[0, 0], [0, tile], [tile, 0], [tile, tile]], device=images.device).expand(b, 4, 2)
    zeros = torch.zeros(b, 3, 2, dtype=torch.int64, device=images.device)
    order = ORDERS.to(images.device)[orders]
    tiles = as_bhwc(shuffle_tiles(images, order, corners, zeros, zeros[:, 0, 0], tile=tile, standardize=False, **BYTES))
    whole = images.clone()
    whole[:, : 2 * tile, : 2 * tile] = tiles.view(b, 2, 2, tile, tile, 3).transpose(2, 3).reshape(b, 2 * tile, -1, 3)
    return whole


def cropped(images: Tensor, bits: RandomBits, share: float) -> Tensor:
    """Cuts a random square window out of each image and enlarges it to the image's size.

    Args:
        images: [b, s, s, 3] uint8.
        bits: The batch's random numbers.
        share: The window's side as a share of the image's.

    Returns:
        [b, s, s, 3] uint8.
    """
    size = images.shape[1]
    window = max(1, round(share * size))
    corners = randint(bits.draw("crop", 2), size - window + 1)
    boxes = torch.cat([corners, torch.full_like(corners, window)], 1)
    return as_bhwc(crop_flip(images, torch.zeros_like(bits.ids), boxes, size=size, **BYTES))


def color_jittered(images: Tensor, bits: RandomBits, strength: float) -> Tensor:
    """Changes brightness, contrast, saturation and hue of each image by random amounts in a random order.

    Source: SimCLR's color distortion (Chen et al. 2020, arXiv:2002.05709, appendix A), applied to every image and
    without conversion to gray.

    Args:
        images: [b, s, s, 3] uint8.
        bits: The batch's random numbers.
        strength: Brightness, contrast and saturation are multiplied by 1 - 0.8 `strength` to 1 + 0.8 `strength`, hue is
            shifted by up to 0.2 `strength` of the color circle, either way.

    Returns:
        [b, s, s, 3] uint8.
    """
    words = bits.draw("colour", 8)  # the name decides the numbers, so it stays
    shift = 2 * uniform(words[:, :4]) - 1
    most = strength * torch.tensor([0.8, 0.8, 0.8, 0.2], device=images.device)
    base = torch.tensor([1.0, 1.0, 1.0, 0.0], device=images.device)
    order, grays = words[:, 4:].argsort(1), torch.zeros_like(bits.ids)
    return as_bhwc(photometric(images, base + most * shift, order, grays, **BYTES))


def blurred(images: Tensor, share: float) -> Tensor:
    """Blurs images by a Gaussian filter that is cut off at three standard deviations, with reflected borders.

    Args:
        images: [b, s, s, 3] uint8.
        share: The standard deviation as a share of the image's side.

    Returns:
        [b, s, s, 3] uint8.
    """
    sigma = share * images.shape[1]
    reach = math.ceil(3 * sigma)
    weights = (-(torch.arange(-reach, reach + 1, device=images.device) ** 2) / (2 * sigma**2)).exp()
    weights = (weights / weights.sum()).expand(3, 1, 1, -1)
    x = F.pad(images.permute(0, 3, 1, 2).float(), (reach,) * 4, mode="reflect")
    x = F.conv2d(F.conv2d(x, weights, groups=3), weights.transpose(2, 3), groups=3)
    return as_bhwc(x.round().to(torch.uint8)).contiguous()


def augmented(images: Tensor, bits: RandomBits) -> Tensor:
    """Makes a random view of each image: a resized crop, mirrored or not, with other colors.

    It is a view as contrastive methods train on (SimCLR, Chen et al. 2020, arXiv:2002.05709), without gray and blur.

    Args:
        images: [b, s, s, 3] uint8.
        bits: The batch's random numbers.

    Returns:
        [b, s, s, 3] uint8: crops of 20 % to all of the area, colors at strength 0.5.
    """
    crop = resized_crop(images, bits.draw("resized crop", CROP), images.shape[1], min_area=0.2)
    return color_jittered(crop, bits, strength=0.5)
