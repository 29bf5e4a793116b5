"""Finds the range of a dataset's pixel values from some of its files, before any is trained on."""

from collections.abc import Callable
from posixpath import splitext
from typing import BinaryIO, TypeVar

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile

from ssl_core.data.decoding.decode import UNREADABLE, with_retries
from ssl_core.data.decoding.deep_pixels import Levels, deep_values, has_more_bits, levels_of
from ssl_core.data.split import Split

HEADERS = 256  # files of a folder on a disk whose headers are read, evenly spaced in a split or its first shard
SAMPLE = 32  # files among them with more than eight bits whose pixels are read; in a store, files whose headers are
T = TypeVar("T")
SHALLOW = {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".gif", ".bmp", ".avif", ".heic", ".qoi"}  # eight bits


def sampled_range(split: Split, headers: int) -> tuple[Levels | None, str]:
    """Finds the values of images of more than eight bits that become black and white.

    Args:
        split: The training images.
        headers: How many files, evenly spaced, are opened at most; files whose format has eight bits are not.

    Returns:
        The levels, and a note for the user; (None, "") where no file of the sample has more than eight bits.
    """
    levels = _levels(split, headers)
    if levels is None:
        return None, ""
    return levels, f"pixels of more than 8 bits are read from {_span(levels)}, by a sample of the files"


def range_mismatch_note(split: Split, levels: Levels | None, headers: int) -> str:
    """Returns a note for the user if test images have another range than the training images.

    Args:
        split: The test images.
        levels: The range of the training images, by which the test images are read, too.
        headers: As for `sampled_range`.

    Returns:
        The note; "" if there is nothing to say.
    """
    own = _levels(split, headers)
    if own in (None, levels):
        return ""
    as_what = f"from {_span(levels)}" if levels else "as ones of 16 bits"
    return f"test images have pixels from {_span(own)}, and are read {as_what}, as training images are"


def _levels(split: Split, headers: int) -> Levels | None:
    shards = split.fetched_shards()
    count = shards[0].images if shards else len(split)  # of a shard that is read for this, no other has to be fetched
    candidates = [i for i in range(count) if splitext(split.name(i))[1].lower() not in SHALLOW]
    deep = [i for i in _evenly_spaced(candidates, headers) if _inspect(split, i, _may_be_deep)]
    found = (_inspect(split, i, deep_values) for i in _evenly_spaced(deep, SAMPLE))
    return levels_of(values for values in found if values is not None)


def _span(levels: Levels) -> str:
    low, high = (f"{value:,.6g}" if abs(value) < 1e6 else f"{value:.3g}" for value in levels)
    return f"{low} (black) to {high} (white)"


def _evenly_spaced(ids: list[int], count: int) -> list[int]:
    return [ids[i] for i in np.linspace(0, len(ids) - 1, min(count, len(ids)), dtype=np.int64)]


def _inspect(split: Split, i: int, look: Callable[[ImageFile, BinaryIO], T]) -> T | None:
    """Returns what `look` finds in an image; None if it cannot be read."""

    def once() -> T:
        with split.open(i) as source, Image.open(source) as file:
            return look(file, source)

    try:
        return with_retries(once)
    except UNREADABLE:
        return None


def _may_be_deep(file: ImageFile, _: BinaryIO) -> bool:
    return has_more_bits(file)
