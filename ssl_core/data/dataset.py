"""A dataset as the rest of the program sees it."""

import io
import os
import stat
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import numpy as np

from ssl_core.data.data_source import dataset_names, source_that_opens
from ssl_core.data.decoding.deep_pixels import Levels
from ssl_core.data.masks import Masks
from ssl_core.data.split import Fetchable, FetchedShard, NamedBytes, Readable, Split
from ssl_core.errors import TilespinError, UserError, closest

IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of 0..255, per channel


@dataclass(frozen=True)
class Arrays(Split):
    """A split of decoded images that are kept in memory; as files, they are PPM files.

    Attributes:
        images: [n, size, size, 3] uint8.
        labels: [n] int64.
    """

    images: np.ndarray
    labels: np.ndarray

    @property
    def pixels(self) -> np.ndarray:
        """Returns `images`."""
        return self.images

    def open(self, i: int) -> NamedBytes:
        """Returns image `i` as a PPM file."""
        return NamedBytes(self._ppm_header() + self.images[i].tobytes(), self.name(i))

    def size(self, i: int) -> int:
        """Returns the bytes of image `i` as a PPM file."""
        return len(self._ppm_header()) + self.images[i].nbytes

    def name(self, i: int) -> str:
        """Returns the number of image `i` in words, for it has no other name."""
        return f"image {i}"

    def subset(self, ids: np.ndarray) -> "Arrays":
        """Returns the images `ids`, [k] int64, as a split of their own."""
        return Arrays(self.images[ids], self.labels[ids])

    def _ppm_header(self) -> bytes:
        height, width = self.images.shape[1:3]
        return f"P6\n{width} {height}\n255\n".encode()


@dataclass(frozen=True)
class Files(Split):
    """A split of image files on a disk, which are decoded when they are needed.

    Attributes:
        paths: The files.
        labels: [n] int64, -1 where there are none.
        levels: As in Split.
    """

    paths: list[Path]
    labels: np.ndarray
    levels: Levels | None = None

    def open(self, i: int) -> BinaryIO:
        """Opens the file of image `i`.

        Raises:
            OSError: If it cannot be read.
            ValueError: If it is no regular file.
        """
        if not stat.S_ISREG(os.stat(self.paths[i]).st_mode):
            raise ValueError("not a regular file")  # opening a pipe would wait for ever
        return open(self.paths[i], "rb")

    def size(self, i: int) -> int:
        """Returns the bytes of image `i`; 0 if its file is gone."""
        try:
            return self.paths[i].stat().st_size
        except OSError:
            return 0

    def name(self, i: int) -> str:
        """Returns the path of image `i`."""
        return str(self.paths[i])


class Shard(NamedTuple):
    """A tar file of images on a disk.

    Attributes:
        path: The file.
        stamp: Tells it from another that was at this path before.
    """

    path: Path
    stamp: str

    @property
    def name(self) -> str:
        """Returns the file's name without its folder."""
        return self.path.name

    def read(self, length: int, offset: int) -> bytes:
        """Returns `length` bytes from byte `offset` on; raises OSError if the file cannot be read."""
        file = _open_shard(self)  # held while it is read: another thread may push it out of the cache, which closes it
        return os.pread(file.fileno(), length, offset)


@dataclass(frozen=True)
class Packed(Split):
    """A split of encoded images inside tar shards, each read at once from its place.

    Attributes:
        part: "train" or "test": the images' keys begin with it.
        shards: The shards of the whole dataset; those of this split follow one another.
        offsets: [n, 4] int64: shard, offset in it, bytes, number in the dataset that was packed.
        labels: [n] int64, -1 where there are none.
        windowed: Whether training reads a few shards at a time, because they have to be fetched from a store, or to be
            written out first.
        levels: As in Split.
    """

    part: str
    shards: tuple[Readable, ...]
    offsets: np.ndarray
    labels: np.ndarray
    windowed: bool = False
    levels: Levels | None = None

    @property
    def remote(self) -> bool:
        """Returns `windowed`."""
        return self.windowed

    def fetched_shards(self) -> list[FetchedShard]:
        """Returns the split's shards and how many images are in each, if `windowed`; else none."""
        if not self.windowed or not len(self):
            return []
        shards = cast(tuple[Fetchable, ...], self.shards[self.offsets[0, 0] :])
        return [FetchedShard(*one) for one in zip(shards, self.counts().tolist())]

    def open(self, i: int) -> BinaryIO:
        """Reads the bytes of image `i`, as a file; raises what its shard's `read` raises."""
        shard, offset, length, _ = self.offsets[i].tolist()
        return NamedBytes(self.shards[shard].read(length, offset), self.name(i))

    def counts(self) -> np.ndarray:
        """Returns how many images are in each of the split's shards, [s] int64, from shard offsets[0, 0] on."""
        assert (np.diff(self.offsets[:, 0]) >= 0).all(), "the images of a shard lie together"
        return np.bincount(self.offsets[:, 0] - self.offsets[0, 0])

    def subset(self, ids: np.ndarray) -> Split:
        """Returns the images `ids`, [k] int64; if these are in ascending order, shards are still fetched a few at a
        time."""
        if (np.diff(ids) < 0).any():
            return super().subset(ids)
        return replace(self, offsets=self.offsets[ids], labels=self.labels[ids])

    def size(self, i: int) -> int:
        """Returns the bytes of image `i`."""
        return int(self.offsets[i, 2])

    def name(self, i: int) -> str:
        """Returns what messages call image `i`: its shard and its key there."""
        shard, _, _, number = self.offsets[i].tolist()
        return f"{self.shards[shard].name}: {image_key(self.part, number)}"


def image_key(part: str, number: int) -> str:
    """Returns the key in its shard of image `number` of `part` of the dataset that was packed."""
    return f"{part}-{number:08d}"


@lru_cache(maxsize=256)  # below the usual limit of open files; what falls out is closed
def _open_shard(shard: Shard) -> io.FileIO:
    """Opens a shard, once in a process. A process forked later may use it too: pread moves no common position."""
    return io.FileIO(shard.path)


@dataclass(frozen=True)
class Source:
    """A dataset.

    Attributes:
        name: What users call it.
        digest: Names the content and its order; for a folder by paths and sizes, not bytes.
        size: The side in pixels that images are delivered at.
        train: What encoders learn from, labeled or not; probes and supervised training use the labeled images only.
        test: Empty where there are neither labels nor masks.
        classes: Their names by number; none where there are no labels.
        mean: Of 0..255, per channel.
        std: Of 0..255, per channel.
        notes: What the user should know about how it was read.
        masks: What each pixel shows, of all images; None where that is not known.
    """

    name: str
    digest: str
    size: int
    train: Split
    test: Split
    classes: tuple[str, ...] = ()
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    notes: tuple[str, ...] = field(default=())
    masks: Masks | None = None

    @property
    def multilabel(self) -> bool:
        """Returns whether an image may have several labels: `labels` of splits are then [n, classes] bool."""
        return self.train.labels.ndim == 2

    def labeled(self) -> "Source":
        """Returns the dataset without its unlabeled training images; itself if none or all have labels."""
        labeled = self.train.labeled
        if labeled.all() or not labeled.any():
            return self
        return replace(self, train=self.train.subset(np.flatnonzero(labeled)))


@lru_cache(maxsize=4)
def open_source(data: str, size: int | None = None) -> Source:
    """Opens a dataset, once in a process: a folder is listed, and arrays are resized, only the first time.

    Args:
        data: A known name, a URL, a packed dataset, tar files, a folder of tar files or of images, a table of images,
            or what a plug-in opens.
        size: The side in pixels that images are delivered at, 8 to 4096; None: the dataset's own.

    Raises:
        UserError: If there is no such dataset, it holds no image, or it cannot be fetched or read.
    """
    if size is not None and not 8 <= size <= 4096:
        raise UserError(f"--size is {size}, expected 8 to 4096 pixels")
    try:
        Path(data).expanduser()
    except RuntimeError as error:  # ~ of nobody
        raise UserError(f"--data {data}: {error}") from error
    try:
        if source := source_that_opens(data):
            return source.load(data, size)
    except OSError as error:
        if isinstance(error, TilespinError):
            raise
        raise UserError(f"--data {data}: cannot be read: {error.strerror or error}") from error
    names = dataset_names()
    close = closest(data, names)
    hint = f": did you mean {close}?" if close else f", and not one of the known datasets ({', '.join(names)})"
    raise UserError(f"--data {data}: no such folder{hint}")
