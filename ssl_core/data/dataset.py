"""A dataset as the rest of the program sees it."""

import io
import os
import stat
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np

import ssl_core.data.sources
from ssl_core.data.decoding.deep_pixels import Levels
from ssl_core.errors import UserError, closest
from ssl_core.plugins import modules

IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of 0..255, per channel


@dataclass(frozen=True)
class Arrays:
    """Decoded images that are kept in memory."""

    images: np.ndarray  # [n, size, size, 3] uint8
    labels: np.ndarray  # [n] int64

    def __len__(self) -> int:
        return len(self.labels)


class Encoded(Protocol):
    """Image files that are decoded when they are needed; several threads may open them at once."""

    @property
    def labels(self) -> np.ndarray:
        """[n] int64, -1 where there are none."""
        ...

    def __len__(self) -> int: ...

    def open(self, i: int) -> BinaryIO:
        """The file of image `i`. Raises OSError or ValueError if there is none."""
        ...

    def size(self, i: int) -> int:
        """The bytes of image `i`; 0 if its file is gone."""
        ...

    def name(self, i: int) -> str:
        """What messages call image `i`."""
        ...

    @property
    def levels(self) -> Levels | None:
        """The values of images of more than eight bits that become black and white; None: not looked at."""
        ...


@dataclass(frozen=True)
class Files:
    """Image files that are decoded when they are needed; `labels` are -1 where there are none."""

    paths: list[Path]
    labels: np.ndarray  # [n] int64
    levels: Levels | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def open(self, i: int) -> BinaryIO:
        """The file of image `i`. Raises OSError, or ValueError if it is no regular file."""
        if not stat.S_ISREG(os.stat(self.paths[i]).st_mode):
            raise ValueError("not a regular file")  # opening a pipe would wait for ever
        return open(self.paths[i], "rb")

    def size(self, i: int) -> int:
        try:
            return self.paths[i].stat().st_size
        except OSError:
            return 0

    def name(self, i: int) -> str:
        """What messages call image `i`."""
        return str(self.paths[i])


class Shard(NamedTuple):
    """A tar file of images; the stamp tells it from another that lay at this path before."""

    path: Path
    stamp: str

    @property
    def name(self) -> str:
        return self.path.name

    def read(self, length: int, offset: int) -> bytes:
        """Raises OSError."""
        file = _open_shard(self)  # held while it is read: another thread may push it out of the cache, which closes it
        return os.pread(file.fileno(), length, offset)


class Readable(Protocol):
    """A tar file, here or in a store."""

    @property
    def name(self) -> str: ...

    def read(self, length: int, offset: int) -> bytes: ...


@dataclass(frozen=True)
class Packed:
    """Encoded images inside tar shards, each read by one pread; `labels` are -1 where there are none."""

    part: str  # "train" or "test": the images' keys begin with it
    shards: tuple[Readable, ...]
    offsets: np.ndarray  # [n, 4] int64: shard, offset in it, bytes, number in the dataset that was packed
    labels: np.ndarray  # [n] int64
    windowed: bool = False  # whether training meets a few shards at a time, because they have to be fetched
    levels: Levels | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def open(self, i: int) -> BinaryIO:
        """The bytes of image `i` as a file. Raises what its shard raises if it cannot be read."""
        shard, offset, length, _ = self.offsets[i].tolist()
        return NamedBytes(self.shards[shard].read(length, offset), self.name(i))

    def counts(self) -> np.ndarray:
        """[s] int64: how many images lie in each of its shards, which follow one another from offsets[0, 0] on."""
        assert (np.diff(self.offsets[:, 0]) >= 0).all(), "the images of a shard lie together"
        return np.bincount(self.offsets[:, 0] - self.offsets[0, 0])

    def size(self, i: int) -> int:
        return int(self.offsets[i, 2])

    def name(self, i: int) -> str:
        """What messages call image `i`: its shard and its key there."""
        shard, _, _, number = self.offsets[i].tolist()
        return f"{self.shards[shard].name}: {image_key(self.part, number)}"


def image_key(part: str, number: int) -> str:
    """The name that a packed dataset gives image `number` of `part`."""
    return f"{part}-{number:08d}"


class NamedBytes(io.BytesIO):
    """Bytes that Pillow's messages call by a name instead of an address."""

    def __init__(self, data: bytes, name: str):
        super().__init__(data)
        self.called = name

    def __repr__(self) -> str:
        return self.called


@lru_cache(maxsize=256)  # below the usual limit of open files; what falls out is closed
def _open_shard(shard: Shard) -> io.FileIO:
    """The shard, opened once in a process. A process forked later may use it too: pread moves no common position."""
    return io.FileIO(shard.path)


@dataclass(frozen=True)
class Subset:
    """Some images of a split that are decoded when they are needed, as a split of their own."""

    whole: Encoded
    ids: np.ndarray  # [n] int64, rows of `whole`

    @property
    def labels(self) -> np.ndarray:
        return self.whole.labels[self.ids]

    @property
    def levels(self) -> Levels | None:
        return self.whole.levels

    def __len__(self) -> int:
        return len(self.ids)

    def open(self, i: int) -> BinaryIO:
        return self.whole.open(int(self.ids[i]))

    def size(self, i: int) -> int:
        return self.whole.size(int(self.ids[i]))

    def name(self, i: int) -> str:
        return self.whole.name(int(self.ids[i]))


Split = Arrays | Encoded


def subset(split: Split, ids: np.ndarray) -> Split:
    """The images `ids` ([n] int64) of a split, as a split."""
    return Arrays(split.images[ids], split.labels[ids]) if isinstance(split, Arrays) else Subset(split, ids)


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
    """The dataset that `data` names: a known name, a URL, a packed dataset, a folder of tars or of images. `size` None
    takes its own side.

    Opened once in a process: a folder is listed, and arrays are resized, only the first time.
    Raises UserError when there is no such dataset, it holds no image, or it cannot be fetched.
    """
    if size is not None and not 8 <= size <= 4096:
        raise UserError(f"--size is {size}, expected 8 to 4096 pixels")
    try:
        Path(data).expanduser()
    except RuntimeError as error:  # ~ of nobody
        raise UserError(f"--data {data}: {error}") from error
    known = modules(ssl_core.data.sources)
    for module in sorted(known.values(), key=lambda module: getattr(module, "FALLBACK", False)):
        try:
            if module.opens(data):
                return module.load(data, size)
        except OSError as error:
            if hasattr(error, "exit_code"):
                raise
            raise UserError(f"--data {data}: cannot be read: {error.strerror or error}") from error
    names = [m.NAME for m in known.values() if hasattr(m, "NAME")]
    close = closest(data, names)
    hint = f": did you mean {close}?" if close else f", and not one of the known datasets ({', '.join(names)})"
    raise UserError(f"--data {data}: no such folder{hint}")


def resized(images: np.ndarray, size: int | None) -> np.ndarray:
    """[n, h, w, 3] uint8 at another side, or as it is."""
    if size is None or images.shape[1] == size:
        return images
    from PIL import Image

    return np.stack([np.asarray(Image.fromarray(image).resize((size, size), Image.BICUBIC)) for image in images])
