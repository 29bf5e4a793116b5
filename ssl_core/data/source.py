"""A dataset as the rest of the program sees it."""

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

import ssl_core.data.sources
from ssl_core.discover import modules
from ssl_core.errors import BadInput

IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of 0..255, per channel


@dataclass(frozen=True)
class Arrays:
    """Decoded images that are kept in memory."""

    images: np.ndarray  # [n, size, size, 3] uint8
    labels: np.ndarray  # [n] int64

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Files:
    """Image files that are decoded when they are needed; `labels` are -1 where there are none."""

    paths: list[Path]
    labels: np.ndarray  # [n] int64

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class Source:
    """A dataset: `train` is what encoders learn from; `test` is empty where there are no labels."""

    name: str
    digest: str  # names the content and its order; for a folder: paths and sizes, not bytes
    size: int  # the side in pixels that images are delivered at
    train: Arrays | Files
    test: Arrays | Files
    classes: tuple[str, ...] = ()
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    notes: tuple[str, ...] = field(default=())  # what the user should hear about it


@lru_cache(maxsize=4)
def open_source(data: str, size: int | None = None) -> Source:
    """The dataset that `data` names: a known name or a folder of images. `size` None takes its own side.

    Opened once in a process: a folder is listed, and arrays are resized, only the first time.
    Raises BadInput when there is no such dataset, it holds no image, or it cannot be fetched.
    """
    if size is not None and not 8 <= size <= 4096:
        raise BadInput(f"--size is {size}, expected 8 to 4096 pixels")
    known = modules(ssl_core.data.sources)
    for module in known.values():
        if module.opens(data):
            return module.load(data, size)
    names = ", ".join(m.NAME for m in known.values() if hasattr(m, "NAME"))
    raise BadInput(f"--data {data}: no such folder, and not one of the known datasets ({names})")


def resized(images: np.ndarray, size: int | None) -> np.ndarray:
    """[n, h, w, 3] uint8 at another side, or as it is."""
    if size is None or images.shape[1] == size:
        return images
    from PIL import Image

    return np.stack([np.asarray(Image.fromarray(image).resize((size, size), Image.BICUBIC)) for image in images])
