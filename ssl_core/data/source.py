"""A dataset as the rest of the program sees it."""

import io
import os
import stat
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

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

    def open(self, i: int) -> BinaryIO:
        """The file of image `i`. Raises OSError, or ValueError if it is no regular file."""
        if not stat.S_ISREG(os.stat(self.paths[i]).st_mode):
            raise ValueError("not a regular file")  # opening a pipe would wait for ever
        return open(self.paths[i], "rb")

    def name(self, i: int) -> str:
        """What messages call image `i`."""
        return str(self.paths[i])


class Shard(NamedTuple):
    """A tar file of a packed dataset; the content's hash tells it from another that lay at this path before."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class Packed:
    """Encoded images inside tar shards, each read by one pread; `labels` are -1 where there are none."""

    part: str  # "train" or "test": the images' keys begin with it
    shards: tuple[Shard, ...]
    places: np.ndarray  # [n, 4] int64: shard, offset in it, bytes, number in the dataset that was packed
    labels: np.ndarray  # [n] int64

    def __len__(self) -> int:
        return len(self.labels)

    def open(self, i: int) -> BinaryIO:
        """The bytes of image `i` as a file. Raises OSError if its shard cannot be read."""
        shard, offset, length, _ = self.places[i].tolist()
        return _Named(os.pread(_opened(self.shards[shard]).fileno(), length, offset), self.name(i))

    def name(self, i: int) -> str:
        """What messages call image `i`: its shard and its key there."""
        shard, _, _, number = self.places[i].tolist()
        return f"{self.shards[shard].path.name}: {key(self.part, number)}"


def key(part: str, number: int) -> str:
    """The name that a packed dataset gives image `number` of `part`."""
    return f"{part}-{number:08d}"


class _Named(io.BytesIO):
    """Bytes that Pillow's messages call by a name instead of an address."""

    def __init__(self, data: bytes, name: str):
        super().__init__(data)
        self.called = name

    def __repr__(self) -> str:
        return self.called


@lru_cache(maxsize=256)  # below the usual limit of open files; what falls out is closed
def _opened(shard: Shard) -> io.FileIO:
    """The shard, opened once in a process. A process forked later may use it too: pread moves no common position."""
    return io.FileIO(shard.path)


Encoded = Files | Packed  # decoded when needed: open(i) and name(i)
Split = Arrays | Encoded


@dataclass(frozen=True)
class Source:
    """A dataset: `train` is what encoders learn from; `test` is empty where there are no labels."""

    name: str
    digest: str  # names the content and its order; for a folder: paths and sizes, not bytes
    size: int  # the side in pixels that images are delivered at
    train: Split
    test: Split
    classes: tuple[str, ...] = ()
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    notes: tuple[str, ...] = field(default=())  # what the user should hear about it


@lru_cache(maxsize=4)
def open_source(data: str, size: int | None = None) -> Source:
    """The dataset that `data` names: a known name, a packed dataset or a folder. `size` None takes its own side.

    Opened once in a process: a folder is listed, and arrays are resized, only the first time.
    Raises BadInput when there is no such dataset, it holds no image, or it cannot be fetched.
    """
    if size is not None and not 8 <= size <= 4096:
        raise BadInput(f"--size is {size}, expected 8 to 4096 pixels")
    known = modules(ssl_core.data.sources)
    for module in sorted(known.values(), key=lambda module: getattr(module, "FALLBACK", False)):
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
