"""Pixels of more than eight bits, or of floating point: which values are black and white, for a whole dataset alike.

A file does not say what its values mean: cameras and microscopes keep 12 bits in 16, and a decoder that stretched each
image by itself would make dark images bright and lose what tells them apart.
"""

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile

if TYPE_CHECKING:
    from PIL.ImageFile import _Tile  # the only name of its type

Levels = tuple[float, float]  # the values that become 0 and 255

SIXTEEN_BITS: Levels = (0.0, 65535.0)
BY_MODE: dict[str, Levels] = {"F": (0.0, 255.0)}  # where nobody looked at the dataset; all others are 16-bit
# The usual ranges of integers and of floats; the first that holds nearly all values is taken
INTEGERS: tuple[Levels, ...] = tuple((0.0, 2.0**bits - 1) for bits in (8, 10, 12, 14, 16))
FLOATS: tuple[Levels, ...] = ((0.0, 1.0), (-1.0, 1.0), *INTEGERS)
OUTLIERS = 0.001  # share of values that may lie outside, on either side: hot pixels, highlights
NO_DATA = 1e30  # floats beyond are how maps say that they know nothing of a place, as are infinity and NaN
BITS, PLANES, MEANING = 258, 284, 262  # of TIFF: BitsPerSample, PlanarConfiguration, PhotometricInterpretation
PIXELS = 2**14  # values of each image that are looked at
# Pillow keeps only the more significant byte of 16-bit colors. Read in the other byte order, it keeps the other one.
OTHER_BYTE = {
    f"{mode};16{order}": f"{mode};16{other}"
    for mode in ("RGB", "RGBA", "RGBX")
    for order, other in (("B", "L"), ("L", "B"), ("N", "B" if sys.byteorder == "little" else "L"))
}


def is_deep(image: Image.Image) -> bool:
    """Returns whether an image, loaded or not, has gray values of more than eight bits, or floats."""
    return image.mode.startswith("I") or image.mode == "F"


def has_more_bits(file: ImageFile) -> bool:
    """Returns whether an opened image, not yet loaded, may have more than eight bits a channel."""
    if is_deep(file) or _is_deep_ppm(file) or _is_deep_gray_with_opacity(file):
        return True
    tiles = [_in_other_order(tile) for tile in getattr(file, "tile", [])]
    return bool(tiles) and None not in tiles


def check_readable(file: ImageFile) -> None:
    """Refuses TIFF files that Pillow opens but misreads.

    Raises:
        ValueError: If an image has more than eight bits and each color in a plane of its own, or zero for white.
    """
    tags = getattr(file, "tag_v2", None)
    if tags is None or max(tags.get(BITS, (1,))) <= 8:
        return
    if tags.get(PLANES) == 2 and file.mode not in ("F", "L") and not file.mode.startswith("I"):
        raise ValueError("a TIFF of more than 8 bits with each color in a plane of its own")
    if tags.get(MEANING) == 0:
        raise ValueError("a TIFF of more than 8 bits in which zero is white")


def _is_deep_ppm(file: ImageFile) -> bool:
    if file.format != "PPM" or file.mode != "RGB" or not file.tile:
        return False
    args = file.tile[0].args  # of eight bits a text, for Pillow's raw decoder
    return isinstance(args, tuple) and args[-1] > 255


def _is_deep_gray_with_opacity(file: ImageFile) -> bool:
    return bool(getattr(file, "tile", [])) and all(tile.args == "LA;16B" for tile in file.tile)


def deep_values(file: ImageFile, source: BinaryIO) -> np.ndarray | None:
    """Returns the values of an image of more than eight bits a channel.

    Args:
        file: An opened image, not yet loaded.
        source: The file that it was opened from.

    Returns:
        [h, w] integers or floats for gray images; [h, w, 3 or 4] uint16 for colors of 16 bits; None if the image has
        eight bits, or more than that only in a way of which Pillow reads eight.
    """
    if is_deep(file):
        file.load()
        return np.asarray(file)
    if _is_deep_ppm(file):
        source.seek(file.tile[0].offset)
        return np.frombuffer(source.read(6 * file.width * file.height), ">u2").reshape(file.height, file.width, 3)
    if _is_deep_gray_with_opacity(file):
        file.tile = [tile._replace(args="RGBA") for tile in file.tile]  # the bytes as they are, two for each value
        file.load()
        gray, opacity = np.moveaxis(np.asarray(file).astype(np.uint16).reshape(file.height, file.width, 2, 2), 2, 0)
        gray, opacity = (values[..., 0] << 8 | values[..., 1] for values in (gray, opacity))
        return np.stack([gray, gray, gray, opacity], axis=-1)
    tiles = [other for tile in getattr(file, "tile", []) if (other := _in_other_order(tile)) is not None]
    if not tiles or len(tiles) < len(file.tile):
        return None
    file.load()
    source.seek(0)
    with Image.open(source) as other:
        other.tile = tiles
        return (np.asarray(file).astype(np.uint16) << 8) | np.asarray(other)


def _in_other_order(tile: "_Tile") -> "_Tile | None":
    """Returns what Pillow decodes a part of an image by, with 16-bit colors in the other byte order; None for other
    colors."""
    mode, *others = (tile.args,) if isinstance(tile.args, str) else tile.args or (None,)
    if mode not in OTHER_BYTE:
        return None
    return tile._replace(args=OTHER_BYTE[mode] if isinstance(tile.args, str) else (OTHER_BYTE[mode], *others))


def eight_bits(values: np.ndarray, levels: Levels) -> Image.Image:
    """Maps values of more than eight bits to 0..255.

    Args:
        values: [h, w] or [h, w, 3 or 4]; the fourth channel is opacity, 0..65535.
        levels: The values that become 0 and 255; what is outside becomes black or white, as -inf and NaN become black
            and inf white.

    Returns:
        An image in mode L, RGB or RGBA.
    """
    low, high = levels
    values = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
    found = ((values.clip(low, high) - low) * (255 / (high - low))).round().astype(np.uint8)
    if values.ndim == 3 and values.shape[2] == 4:
        found[..., 3] = values[..., 3] / 257  # opacity has all its bits
    return Image.fromarray(found)


def levels_of(images: Iterable[np.ndarray]) -> Levels | None:
    """Finds the levels of a dataset from a sample of its images.

    Args:
        images: The values of each, as `deep_values` gives them.

    Returns:
        The first usual range that holds all but a few outliers, else the values' own range; None for no images.
    """
    sample = [values[..., :3].ravel() if values.ndim == 3 else values.ravel() for values in images]
    if not sample:
        return None
    floats = any(values.dtype.kind == "f" for values in sample)
    values = np.concatenate([values[:: -(-len(values) // PIXELS)].astype(np.float64) for values in sample])
    values = values[np.abs(values) < NO_DATA]
    if not len(values):
        return SIXTEEN_BITS
    low, high = np.quantile(values, (OUTLIERS, 1 - OUTLIERS), method="nearest").tolist()
    for levels in FLOATS if floats else INTEGERS:
        if levels[0] <= low and high <= levels[1]:
            return levels
    return (low, high if high > low else max(low + 1, float(np.nextafter(low, np.inf))))
