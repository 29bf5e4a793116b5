"""Pixels of more than eight bits, or of floating point: which values are black and white, for a whole dataset alike.

A file does not say what its values mean: cameras and microscopes keep 12 bits in 16, and a decoder that stretched each
image by itself would make dark images bright and lose what tells them apart.
"""

import sys
from collections.abc import Iterable
from typing import BinaryIO

import numpy as np
from PIL import Image

Levels = tuple[float, float]  # the values that become 0 and 255

SIXTEEN_BITS: Levels = (0.0, 65535.0)
BY_MODE: dict[str, Levels] = {"F": (0.0, 255.0)}  # where nobody looked at the dataset; all others are 16-bit
# The usual ranges of integers and of floats; the first that holds nearly all values is taken
INTEGERS: tuple[Levels, ...] = tuple((0.0, 2.0**bits - 1) for bits in (8, 10, 12, 14, 16))
FLOATS: tuple[Levels, ...] = ((0.0, 1.0), (-1.0, 1.0), *INTEGERS)
OUTLIERS = 0.001  # share of values that may lie outside, on either side: hot pixels, highlights
PIXELS = 2**14  # values of each image that are looked at
# Pillow keeps only the more significant byte of 16-bit colors. Read in the other byte order, it keeps the other one.
OTHER_BYTE = {
    f"{mode};16{order}": f"{mode};16{other}"
    for mode in ("RGB", "RGBA")
    for order, other in (("B", "L"), ("L", "B"), ("N", "B" if sys.byteorder == "little" else "L"))
}


def is_deep(image: Image.Image) -> bool:
    """Whether its pixels are gray values of more than eight bits, or floats. Known before the image is loaded."""
    return image.mode.startswith("I") or image.mode == "F"


def deep_values(file: Image.Image, source: BinaryIO) -> np.ndarray | None:
    """The values of an opened image, [h, w] for gray ones and [h, w, 3 or 4] uint16 for colors of 16 bits; None if it
    has no more than eight bits, or as Pillow reads it. `source` is the file that it was opened from."""
    if is_deep(file):
        file.load()
        return np.asarray(file)
    tiles = [_in_other_order(tile) for tile in getattr(file, "tile", [])]
    if not tiles or None in tiles:
        return None
    file.load()
    source.seek(0)
    with Image.open(source) as other:
        other.tile = tiles
        return (np.asarray(file).astype(np.uint16) << 8) | np.asarray(other)


def _in_other_order(tile):
    """What Pillow decodes a part of an image by, with 16-bit colors in the other byte order; None for other colors."""
    mode = tile.args if isinstance(tile.args, str) else tile.args[0] if tile.args else None
    if mode not in OTHER_BYTE:
        return None
    args = OTHER_BYTE[mode] if isinstance(tile.args, str) else (OTHER_BYTE[mode], *tile.args[1:])
    return tile._replace(args=args)


def eight_bits(values: np.ndarray, levels: Levels) -> Image.Image:
    """Deep values as an image in mode L, RGB or RGBA; what is outside `levels` is black or white, as -inf and NaN are
    black and inf is white."""
    low, high = levels
    values = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
    found = ((values.clip(low, high) - low) * (255 / (high - low))).round().astype(np.uint8)
    if values.ndim == 3 and values.shape[2] == 4:
        found[..., 3] = values[..., 3] / 257  # opacity has all its bits
    return Image.fromarray(found)


def levels_of(images: Iterable[np.ndarray]) -> Levels | None:
    """The levels of a dataset of which these are deep values of a sample: the first usual range that holds all but a
    few outliers, else the values' own range; None for no images."""
    sample = [values[..., :3].ravel() if values.ndim == 3 else values.ravel() for values in images]
    if not sample:
        return None
    floats = any(values.dtype.kind == "f" for values in sample)
    values = np.concatenate([values[:: -(-len(values) // PIXELS)].astype(np.float64) for values in sample])
    values = values[np.isfinite(values)]
    if not len(values):
        return SIXTEEN_BITS
    low, high = np.quantile(values, (OUTLIERS, 1 - OUTLIERS), method="nearest").tolist()
    for levels in FLOATS if floats else INTEGERS:
        if levels[0] <= low and high <= levels[1]:
            return levels
    return (low, high if high > low else low + 1)
