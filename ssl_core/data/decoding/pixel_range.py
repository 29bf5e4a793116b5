"""The range of a dataset's pixel values, found from some of its files before any is trained on."""

from collections.abc import Callable
from posixpath import splitext
from typing import BinaryIO, TypeVar

import numpy as np
from PIL import Image

from ssl_core.data.dataset import Encoded
from ssl_core.data.decoding.decode import UNREADABLE, with_retries
from ssl_core.data.decoding.deep_pixels import Levels, deep_values, has_more_bits, levels_of

HEADERS = 256  # files of a folder whose headers are looked at, from everywhere in a split
SAMPLE = 32  # of them, deep ones whose pixels are looked at; of a store, files whose headers are
T = TypeVar("T")
SHALLOW = {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".gif", ".bmp", ".avif", ".heic", ".qoi"}  # eight bits


def sampled_range(split: Encoded, headers: int) -> tuple[Levels | None, str]:
    """The values of deep images that become black and white, and what to say of it; (None, "") where no file of the
    sample is deep. Of so many files, everywhere in the split, the `headers` are looked at; files whose format has
    eight bits are not."""
    levels = _levels(split, headers)
    if levels is None:
        return None, ""
    return levels, f"pixels of more than 8 bits are read from {_span(levels)}, by a sample of the files"


def range_mismatch_note(split: Encoded, levels: Levels | None, headers: int) -> str:
    """What to say of test images whose range is not that of the training images, `levels`, by which they are read."""
    own = _levels(split, headers)
    if own in (None, levels):
        return ""
    as_what = f"from {_span(levels)}" if levels else "as ones of 16 bits"
    return f"test images have pixels from {_span(own)}, and are read {as_what}, as training images are"


def _levels(split: Encoded, headers: int) -> Levels | None:
    candidates = [i for i in range(len(split)) if splitext(split.name(i))[1].lower() not in SHALLOW]
    deep = [i for i in _evenly_spaced(candidates, headers) if _inspect(split, i, _may_be_deep)]
    found = (_inspect(split, i, deep_values) for i in _evenly_spaced(deep, SAMPLE))
    return levels_of(values for values in found if values is not None)


def _span(levels: Levels) -> str:
    low, high = (f"{value:,.6g}" if abs(value) < 1e6 else f"{value:.3g}" for value in levels)
    return f"{low} (black) to {high} (white)"


def _evenly_spaced(ids: list[int], count: int) -> list[int]:
    return [ids[i] for i in np.linspace(0, len(ids) - 1, min(count, len(ids)), dtype=np.int64)]


def _inspect(split: Encoded, i: int, look: Callable[[Image.Image, BinaryIO], T]) -> T | None:
    """What `look` finds in an image; None if it cannot be read."""

    def once() -> T:
        with split.open(i) as source, Image.open(source) as file:
            return look(file, source)

    try:
        return with_retries(once)
    except UNREADABLE:
        return None


def _may_be_deep(file: Image.Image, _: BinaryIO) -> bool:
    return has_more_bits(file)
