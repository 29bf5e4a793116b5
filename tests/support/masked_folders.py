"""Folders of images with masks, as VOC and ADE20K have them, made for tests: an image's colors are its mask."""

import io
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from ssl_core.data.masks import Masks
from ssl_core.data.split import Split

# far from each other, so that a resized edge is nearest to one of its two sides
COLORS = np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)], np.uint8)
VOID = 255


def rectangles(height: int, width: int, seed: int, classes: int = 4) -> np.ndarray:
    """Returns a mask of a few rectangles over class 0, [height, width] uint8."""
    rng, mask = np.random.default_rng(seed), np.zeros((height, width), np.uint8)
    for kind in rng.permutation(np.arange(classes).repeat(2)):
        top, left = rng.integers(0, height), rng.integers(0, width)
        mask[top : top + 2 + height // 2, left : left + 2 + width // 2] = kind
    return mask


def save_pair(image: Path, mask: Path, values: np.ndarray, palette: bool = False, void: int = 0) -> None:
    """Writes an image and its mask of these values, [h, w] uint8, after `void` rows at the top became VOID."""
    for path in (image, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(COLORS[values]).save(image, quality=100)
    values = values.copy()
    values[:void] = VOID
    file = Image.fromarray(values)
    if palette:
        file.putpalette(np.random.default_rng(0).permutation(768).astype(np.uint8).tobytes())
    file.save(mask)


def put_ade(root: Path, train: int, test: int, side: tuple[int, int] = (40, 56), **options) -> Path:
    """Writes images/{training,validation} with annotations/, and returns the folder."""
    seeds = iter(range(train + test))
    for part, count in (("training", train), ("validation", test)):
        for i in range(count):
            paths = (root / kind / part / f"{i:03d}.png" for kind in ("images", "annotations"))
            save_pair(*paths, rectangles(*side, next(seeds)), **options)
    return root


class MaskArrays(Split):
    """Masks in memory, [n, h, w] uint8, as PNG files."""

    def __init__(self, values: np.ndarray):
        self.values, self.labels = values, np.full(len(values), -1)

    def open(self, i: int) -> BinaryIO:
        file = io.BytesIO()
        Image.fromarray(self.values[i]).save(file, "png")
        file.seek(0)
        return file

    def size(self, i: int) -> int:
        return self.values[i].nbytes

    def name(self, i: int) -> str:
        return f"mask {i}"


def noise_masks(train: int, test: int, side: int, classes: int = 2) -> Masks:
    """Returns masks of so many images, each pixel of a class at random."""
    rng = np.random.default_rng(0)
    parts = {
        part: rng.integers(0, classes, (count, side, side)).astype(np.uint8)
        for part, count in (("train", train), ("test", test))
    }
    pixels = {part: np.append(np.bincount(of.ravel(), minlength=classes), 0) for part, of in parts.items()}
    names = tuple(map(str, range(classes)))
    return Masks(MaskArrays(parts["train"]), MaskArrays(parts["test"]), names, False, pixels)
