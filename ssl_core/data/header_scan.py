"""Reads the headers of images: what they are and how large, without decoding them."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile

from ssl_core.data.decoding.decode import ORIENTATION, UNREADABLE, with_retries
from ssl_core.data.decoding.deep_pixels import check_readable, has_more_bits
from ssl_core.data.in_threads import in_threads
from ssl_core.data.split import Split
from ssl_core.errors import reason_of

IN_MEMORY = "decoded, in memory"
QUARTER_TURNS = {5, 6, 7, 8}  # orientations in EXIF by which width and height change places
DEPTHS = {"1": "1 bit", "F": "32-bit floats", "I": "32 bits"}  # by Pillow's mode, where it says so


@dataclass
class Headers:
    """What the headers of images of a split say.

    Attributes:
        sizes: [n, 2] int64: width and height in pixels, as they are decoded; without those that cannot be read.
        bytes: Of all files.
        formats: How many images have each format, such as JPEG.
        modes: How many have each mode of Pillow's and depth, such as "RGB, 8 bits".
        unreadable: The number of each that cannot be read, and why.
    """

    sizes: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    bytes: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    unreadable: dict[int, str] = field(default_factory=dict)


class _Header(NamedTuple):
    format: str
    mode: str
    size: tuple[int, int]


def scan_headers(split: Split, ids: np.ndarray, advance: Callable[[int], None] = lambda _: None) -> Headers:
    """Reads the headers of images `ids`, [n] int64.

    Args:
        split: The split that they belong to.
        ids: Their numbers.
        advance: Gets how many more are done, now and then.

    Raises:
        StorageError: If a store fails.
    """
    total = Headers()
    if split.pixels is not None:
        height, width = split.pixels.shape[1:3]
        total.sizes = np.tile(np.array([[width, height]]), (len(ids), 1))
        total.bytes = int(split.pixels[:1].nbytes) * len(ids)
        total.formats[IN_MEMORY] = total.modes["RGB, 8 bits"] = len(ids)
        advance(len(ids))
        return total
    sizes = [total.sizes]
    for count, found in in_threads(partial(_scan_some, split), ids):
        sizes.append(found.sizes)
        total.bytes += found.bytes
        total.formats += found.formats
        total.modes += found.modes
        total.unreadable |= found.unreadable
        advance(count)
    total.sizes = np.concatenate(sizes)
    return total


def _scan_some(split: Split, ids: np.ndarray) -> Headers:
    found, sizes = Headers(), []
    for i in ids.tolist():
        found.bytes += split.size(i)
        try:
            header = with_retries(partial(_read_header, split, i))
        except UNREADABLE as error:
            found.unreadable[i] = reason_of(error)
            continue
        found.formats[header.format] += 1
        found.modes[header.mode] += 1
        sizes.append(header.size)
    found.sizes = np.array(sizes, np.int64).reshape(-1, 2)
    return found


def upright_size(split: Split, i: int) -> tuple[int, int]:
    """Returns width and height of image `i` as it is decoded; raises one of UNREADABLE if it has no header."""
    return with_retries(partial(_read_header, split, i)).size


def _read_header(split: Split, i: int) -> _Header:
    with split.open(i) as source, Image.open(source) as file:
        check_readable(file)
        return _Header(file.format or "unknown", f"{file.mode}, {_depth(file)}", _upright_size(file))


def _upright_size(file: ImageFile) -> tuple[int, int]:
    """Returns width and height of the image that `read_image` gives, which turns it as its metadata say."""
    width, height = file.size
    # Pillow gives the size of TIFF files as they are turned, and looks for metadata that a PNG file does not begin with
    # by decoding it
    if file.format == "TIFF" or (file.format == "PNG" and "exif" not in file.info):
        return width, height
    try:
        turned = file.getexif().get(ORIENTATION) in QUARTER_TURNS
    except UNREADABLE:  # it is decoded as it lies
        turned = False
    return (height, width) if turned else (width, height)


def _depth(file: ImageFile) -> str:
    if file.mode in DEPTHS:
        return DEPTHS[file.mode]
    return "16 bits" if has_more_bits(file) else "8 bits"
