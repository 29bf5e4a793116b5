"""Makes small pictures of images for sheets that people look at."""

import torch
from torch import Tensor

from kernels.crop_flip import crop_flip
from ssl_core.augmentations import BYTES, as_bhwc


def thumbnails(images: Tensor, side: int) -> Tensor:
    """Returns the images, [b, s, s, 3] uint8, with a side of at most `side` pixels."""
    size = images.shape[1]
    if size <= side:
        return images
    flips = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    boxes = torch.tensor([0, 0, size, size], device=images.device).expand(len(images), 4)
    return as_bhwc(crop_flip(images, flips, boxes, size=side, **BYTES))
