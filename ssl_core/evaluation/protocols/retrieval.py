"""Nearest neighbors as a picture for people: some test images, each with the training images that lie closest."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kernels.crop_flip import crop_flip
from ssl_core.augmentations import BYTES, as_bhwc
from ssl_core.evaluation.features import Result, standardize
from ssl_core.evaluation.frozen_encoder import POOL, FrozenEncoder, evenly_spaced
from ssl_core.evaluation.neighbors import nearest_neighbors, too_few_note

version = 1
on = "encoder"
labels = False
headline, higher = "precision@8", True

SIDE, EDGE, GAP = 64, 3, 14  # pixels of the sheet: an image, its border, between a query and its neighbors
RIGHT, WRONG, WHITE = (47, 158, 100), (208, 59, 59), (255, 255, 255)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Cosine similarity of the last stage's features, standardized as those that protocols share are."""

    shown: int = 8
    """queries on the sheet, one a row"""
    neighbors: int = 8
    bank: int = 2000
    """training images among which neighbors are looked for, evenly spaced"""
    queries: int = 500
    """test images that the numbers are of, evenly spaced; those on the sheet are evenly spaced among them"""


def run(model: FrozenEncoder, config: Config, seed: int) -> Result:
    """`similarity@8` is the mean cosine of the neighbors; `precision@8`, if there are labels, the share of them that
    have the query's label, the mean over queries. On the sheet the query comes first; borders are green where labels
    agree and red where they do not."""
    x, y, asked = _evenly_spaced_images(model, "test", config.queries)
    bank, labels, kept = _evenly_spaced_images(model, "train", config.bank)
    mean, std = standardize(bank)
    found = list(nearest_neighbors((x - mean) / std, (bank - mean) / std, config.neighbors))
    near = torch.cat([rows for _, _, rows in found]).numpy()
    k, alike = config.neighbors, labels[near] == y[:, None]
    numbers = {f"similarity@{k}": float(torch.cat([cosines for _, cosines, _ in found]).mean())}
    if model.classes:
        numbers[f"precision@{k}"] = float(alike.mean())
    shown = evenly_spaced(len(x), config.shown)
    image = contact_sheet(asked[shown], kept[near[shown]], alike[shown] if model.classes else None)
    return Result(numbers, sheet=image, notes=too_few_note(len(bank), [k]))


def _evenly_spaced_images(model: FrozenEncoder, split: str, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """-> features [n, d] float32, labels [n] int64 and small pictures [n, s, s, 3] uint8."""
    rows = [(model.pool(images, POOL)[-1], labels, _small(images)) for images, labels in model.images(split, most)]
    features, labels, pictures = (torch.cat(part).cpu().numpy() for part in zip(*rows))
    return features, labels, pictures


def _small(images: Tensor) -> Tensor:
    """[b, s, s, 3] uint8 at a side of at most SIDE."""
    side = images.shape[1]
    if side <= SIDE:
        return images
    flips = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    boxes = torch.tensor([0, 0, side, side], device=images.device).expand(len(images), 4)
    return as_bhwc(crop_flip(images, flips, boxes, size=SIDE, **BYTES))


def contact_sheet(queries: np.ndarray, near: np.ndarray, alike: np.ndarray | None) -> np.ndarray:
    """queries [n, s, s, 3] and near [n, k, s, s, 3] uint8; alike [n, k] bool, or None for no borders -> the sheet
    [h, w, 3] uint8."""
    tile = SIDE + 2 * EDGE
    whole = np.full((len(queries) * tile, tile * (near.shape[1] + 1) + GAP, 3), WHITE, np.uint8)
    for i, query in enumerate(queries):
        for j, image in enumerate([query, *near[i]]):
            y, x = i * tile, j * tile + (GAP if j else 0)
            if j and alike is not None:
                whole[y : y + tile, x : x + tile] = RIGHT if alike[i, j - 1] else WRONG
            large = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.NEAREST)
            whole[y + EDGE : y + EDGE + SIDE, x + EDGE : x + EDGE + SIDE] = np.asarray(large)
    return whole
