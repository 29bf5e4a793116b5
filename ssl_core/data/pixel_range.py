"""The range of a dataset's pixel values, found from some of its files before any is trained on."""

from collections.abc import Iterator
from functools import partial
from posixpath import splitext

import numpy as np
from PIL import Image

from ssl_core.data.decode import UNREADABLE, patiently
from ssl_core.data.deep_pixels import Levels, deep_values, levels_of
from ssl_core.data.source import Encoded

SAMPLE = 32  # files that are looked at, from everywhere in the dataset
SHALLOW = {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".gif", ".bmp", ".avif", ".heic", ".qoi"}  # eight bits


def sampled_range(split: Encoded) -> tuple[Levels | None, str]:
    """The values of deep images that become black and white, and what to say of it; (None, "") where no file of the
    sample is deep. Files whose format has eight bits are not looked at."""
    candidates = [i for i in range(len(split)) if splitext(split.name(i))[1].lower() not in SHALLOW]
    chosen = np.linspace(0, len(candidates) - 1, min(SAMPLE, len(candidates)), dtype=np.int64)
    levels = levels_of(_deep_images(split, [candidates[i] for i in chosen]))
    if levels is None:
        return None, ""
    low, high = (f"{value:,.6g}" if abs(value) < 1e6 else f"{value:.3g}" for value in levels)
    return levels, f"pixels of more than 8 bits are read from {low} (black) to {high} (white), by a sample of the files"


def _deep_images(split: Encoded, ids: list[int]) -> Iterator[np.ndarray]:
    """The values of those of the images `ids` that are deep and can be read."""
    for i in ids:
        try:
            values = patiently(partial(_deep_image, split, i))
        except UNREADABLE:
            continue
        if values is not None:
            yield values


def _deep_image(split: Encoded, i: int) -> np.ndarray | None:
    with split.open(i) as source, Image.open(source) as file:
        return deep_values(file, source)
