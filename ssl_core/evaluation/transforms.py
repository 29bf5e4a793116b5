"""Transformed versions of images that an encoder's features are compared under: one transform at one strength each."""

import math
from collections.abc import Callable
from itertools import permutations

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.crop_flip import crop_flip
from kernels.photometric import photometric
from kernels.random import Draw, below, uniform
from kernels.rotate import rotate
from kernels.shuffle_tiles import shuffle_tiles
from ssl_core.augmentations import BYTES, CROP, bytes_of, resized_crop

ORDERS = torch.tensor(list(permutations(range(4))))  # of the tiles of a 2x2 grid; the first is as they were
View = Callable[[Tensor, Draw], Tensor]  # [b, s, s, 3] uint8 -> the same, transformed

# By transform and strength. Crops by the side that is left, quarter turns in degrees, colour as SimCLR's strength
# (Chen et al. 2020), blur by the standard deviation as a share of the image's side.
TRANSFORMS: dict[str, dict[str, View]] = {
    "crop": {share: lambda x, draw, share=float(share): cropped(x, draw, share) for share in ("0.75", "0.5")},
    "flip": {"mirror": lambda x, draw: x.flip(2)},
    "rotation": {
        str(90 * turns): lambda x, draw, turns=turns: turned(x, torch.full_like(draw.ids, turns)) for turns in (1, 2, 3)
    },
    "jigsaw": {"2x2": lambda x, draw: shuffled(x, 1 + below(draw.words("jigsaw", 1)[:, 0], len(ORDERS) - 1))},
    "colour": {s: lambda x, draw, s=float(s): recoloured(x, draw, s) for s in ("0.25", "0.5")},
    "blur": {s: lambda x, draw, s=float(s): blurred(x, s) for s in ("0.02", "0.04")},
}


def turned(images: Tensor, turns: Tensor) -> Tensor:
    """Each image by its number of quarter turns, [b] int64: exact, so that nothing but the turn is to be seen."""
    zeros = torch.zeros_like(turns)
    return bytes_of(rotate(images, turns, zeros, zeros[:, None].expand(-1, 2), size=images.shape[1], **BYTES))


def shuffled(images: Tensor, orders: Tensor) -> Tensor:
    """Each image's 2x2 tiles in its order of ORDERS, [b] int64; of an odd side the last row and column stay."""
    tile, b = images.shape[1] // 2, len(images)
    corners = torch.tensor([[0, 0], [0, tile], [tile, 0], [tile, tile]], device=images.device).expand(b, 4, 2)
    zeros = torch.zeros(b, 3, 2, dtype=torch.int64, device=images.device)
    order = ORDERS.to(images.device)[orders]
    tiles = bytes_of(
        shuffle_tiles(images, order, corners, zeros, zeros[:, 0, 0], tile=tile, standardise=False, **BYTES)
    )
    whole = images.clone()
    whole[:, : 2 * tile, : 2 * tile] = tiles.view(b, 2, 2, tile, tile, 3).transpose(2, 3).reshape(b, 2 * tile, -1, 3)
    return whole


def cropped(images: Tensor, draw: Draw, share: float) -> Tensor:
    """A random square window of `share` of the side, enlarged to the whole."""
    size = images.shape[1]
    window = max(1, round(share * size))
    corners = below(draw.words("crop", 2), size - window + 1)
    boxes = torch.cat([corners, torch.full_like(corners, window)], 1)
    return bytes_of(crop_flip(images, torch.zeros_like(draw.ids), boxes, size=size, **BYTES))


def recoloured(images: Tensor, draw: Draw, strength: float) -> Tensor:
    """SimCLR's colour distortion without its grey images: brightness, contrast and saturation by up to 0.8 `strength`,
    hue by up to 0.2 `strength`, in a random order."""
    words = draw.words("colour", 8)
    shift = 2 * uniform(words[:, :4]) - 1
    most = strength * torch.tensor([0.8, 0.8, 0.8, 0.2], device=images.device)
    base = torch.tensor([1.0, 1.0, 1.0, 0.0], device=images.device)
    order, greys = words[:, 4:].argsort(1), torch.zeros_like(draw.ids)
    return bytes_of(photometric(images, base + most * shift, order, greys, **BYTES))


def blurred(images: Tensor, share: float) -> Tensor:
    """A Gaussian blur, its standard deviation `share` of the side, its radius three of them."""
    sigma = share * images.shape[1]
    reach = math.ceil(3 * sigma)
    weights = (-(torch.arange(-reach, reach + 1, device=images.device) ** 2) / (2 * sigma**2)).exp()
    weights = (weights / weights.sum()).expand(3, 1, 1, -1)
    x = F.pad(images.permute(0, 3, 1, 2).float(), (reach,) * 4, mode="reflect")
    x = F.conv2d(F.conv2d(x, weights, groups=3), weights.transpose(2, 3), groups=3)
    return bytes_of(x.round().to(torch.uint8)).contiguous()


def augmented(images: Tensor, draw: Draw) -> Tensor:
    """A random view as contrastive methods train on: resized crop of 20 % to all of the area, flip, colour."""
    crop = resized_crop(images, draw.words("resized crop", CROP), images.shape[1], least=0.2)
    return recoloured(crop, draw, strength=0.5)
