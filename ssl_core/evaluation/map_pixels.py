"""Reads the features that maps have at pixels of their images, and what linear classifiers make of whole maps.

A linear classifier of each cell whose scores are enlarged bilinearly is one of bilinearly interpolated features: both
are linear. So a classifier can be trained on features of some pixels, without its scores of all others.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_core.data.mask_reading import read_masks
from ssl_core.data.masks import VOID
from ssl_core.errors import UserError
from ssl_core.evaluation.frozen_encoder import DESCRIPTIONS, FrozenEncoder

NUMBERS = 2**25  # of scores or features that are held at a time
DRAWN = 64  # masks whose pixels are drawn at a time, whatever the encoder


def masked_images(model: FrozenEncoder, split: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Reads the images of a split as `FrozenEncoder.images` does, with their masks.

    Args:
        model: The encoder with its images, which have masks.
        split: "train", "val" or "test".

    Yields:
        Batches: images, [b, size, size, 3] uint8, and masks, [b, size, size] uint8, classes or VOID; on the device.

    Raises:
        UserError: If none of the images can be decoded, or a mask cannot be read.
    """
    part, source = model.parts[split][0], model.source
    assert source.masks  # which is checked before anything runs
    for images, _, rows in model.rows(split):
        masks = read_masks(source.masks, part, rows.cpu().numpy(), source.size)
        yield images, torch.from_numpy(masks).to(model.device)


def images_at_once(model: FrozenEncoder, classes: int) -> int:
    """Returns how many images' maps, and scores of all pixels, may be held at a time."""
    most = max(m[0].numel() for m in model.blank_maps(dense=True))
    return max(1, NUMBERS // max(most, classes * model.source.size**2))


def mapped_stages(model: FrozenEncoder) -> dict[int, int]:
    """Returns the width of each stage, by its number from 0, that has several cells; of all stages if none has."""
    maps = model.blank_maps(dense=True)
    cells = [m.shape[2] * m.shape[3] for m in maps]
    return {i: m.shape[1] for i, m in enumerate(maps) if cells[i] > 1 or max(cells) == 1}


def draw_pixels(masks: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draws pixels that are of a class, without replacement.

    Args:
        masks: [b, s, s] uint8.
        count: Pixels of each mask.
        generator: Of the CPU.

    Returns:
        [b, k] int64, places in a flattened mask, with k at most `count`; -1 where a mask has fewer pixels of a class.
    """
    found = []
    for flat in masks.flatten(1).cpu().split(DRAWN):
        keys = torch.rand(flat.shape, generator=generator).masked_fill_(flat == VOID, 2)
        smallest = keys.topk(min(count, flat.shape[1]), 1, largest=False, sorted=False)
        found.append(torch.where(smallest.values < 2, smallest.indices, -1))
    return torch.cat(found).to(masks.device)


def features_at(map: Tensor, places: Tensor, size: int) -> Tensor:
    """Returns a map's features at pixels of the image, interpolated as `F.interpolate` does, bilinearly.

    Args:
        map: [b, c, h, w].
        places: [b, k] int64, 0 to size**2 - 1, row by row.
        size: The image's side in pixels.

    Returns:
        [b, k, c].
    """
    points = torch.stack([places % size, places // size], -1)
    grid = ((points + 0.5) * 2 / size - 1).to(map.dtype)  # from -1 to 1, at the middle of each pixel
    found = F.grid_sample(map, grid[:, :, None], mode="bilinear", padding_mode="border", align_corners=False)
    return found[..., 0].transpose(1, 2)


def sampled_features(model: FrozenEncoder, split: str, count: int, seed: int) -> tuple[dict[int, Tensor], Tensor]:
    """Reads the features of some pixels of each image, at random places that are the same for all encoders.

    Args:
        model: The encoder with its images.
        split: "train" or "val".
        count: Pixels of each image at most.
        seed: Decides which.

    Returns:
        By stage, of `mapped_stages`: [n, width] float32; and the pixels' classes, [n] int64; all on the device.

    Raises:
        UserError: If no image can be decoded, no pixel is of a class, or a mask cannot be read.
        Diverged: If a map is not finite.
    """
    stages, generator = mapped_stages(model), torch.Generator().manual_seed(seed)
    rows: dict[int, list[Tensor]] = {stage: [] for stage in stages}
    classes = []
    at_once = images_at_once(model, 1)
    for images, masks in masked_images(model, split):
        drawn = draw_pixels(masks, count, generator)
        for some, shown, places in zip(*(of.split(at_once) for of in (images, masks, drawn))):
            known = places >= 0
            places = places.clamp(min=0)
            maps = model.feature_maps(some, dense=True)
            for stage, of in rows.items():
                of.append(features_at(maps[stage], places, model.source.size)[known])
            classes.append(shown.flatten(1).gather(1, places)[known].long())
    y = torch.cat(classes)
    if not len(y):
        raise UserError(f"{model.source.name}: all pixels of the {DESCRIPTIONS[split]} are of no class")
    return {stage: torch.cat(of) for stage, of in rows.items()}, y


def enlarged_answers(map: Tensor, weight: Tensor, bias: Tensor, size: int) -> Tensor:
    """Returns the class that a linear classifier of cells takes each pixel for, its scores enlarged bilinearly.

    Args:
        map: [b, c, h, w].
        weight: [c, classes].
        bias: [classes].
        size: The side in pixels that scores are enlarged to.

    Returns:
        [b, size, size] int64.
    """
    scores = F.conv2d(map, weight.T[:, :, None, None].contiguous(), bias)
    return F.interpolate(scores, size=(size, size), mode="bilinear", align_corners=False).argmax(1)
