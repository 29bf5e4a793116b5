"""What every split of a dataset offers, wherever its images are: on a disk, in a store or in memory."""

import io
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np

from ssl_core.data.decoding.deep_pixels import Levels


class Readable(Protocol):
    """A tar file, here or in a store."""

    @property
    def name(self) -> str:
        """Returns what messages call it: the file's name without its folder."""
        ...

    def read(self, length: int, offset: int) -> bytes:
        """Returns `length` bytes from byte `offset` on.

        Raises:
            OSError: If a disk cannot be read.
            StorageError: If a store fails.
        """
        ...


class Fetchable(Protocol):
    """A file that is fetched from a store, or written out from a shard, before it is read."""

    @property
    def size(self) -> int:
        """Returns its bytes."""
        ...

    def fetch(self) -> None:
        """Fetches it, unless it is here; raises StorageError if the store fails or does not have it any more."""
        ...


class FetchedShard(NamedTuple):
    """A shard that has to be fetched before its images can be read.

    Attributes:
        file: The shard.
        images: How many images of the split are in it.
    """

    file: Fetchable
    images: int


def has_label(labels: np.ndarray) -> np.ndarray:
    """Returns which images have a label, [n] bool, of labels as in Split."""
    return np.any(labels, axis=1) if labels.ndim == 2 else labels >= 0


class Split(ABC):
    """Images of a dataset and their classes; several threads may open images at once.

    Attributes:
        labels: The images' classes, [n] int64, -1 where there are none; or, where an image may have several,
            [n, classes] bool, nothing but False where there are none.
        levels: The values of images of more than eight bits that become black and white; None: not looked at.
    """

    labels: np.ndarray
    levels: Levels | None = None

    @property
    def labeled(self) -> np.ndarray:
        """Returns which images have a label, [n] bool."""
        return has_label(self.labels)

    @property
    def pixels(self) -> np.ndarray | None:
        """Returns the images if they are kept decoded in memory, [n, size, size, 3] uint8; else None."""
        return None

    @property
    def remote(self) -> bool:
        """Returns whether images have to be fetched, from a store or from shards that are written out first."""
        return False

    def fetched_shards(self) -> list[FetchedShard]:
        """Returns the shards that have to be fetched, in the images' order; none if images are read one by one."""
        return []

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def open(self, i: int) -> BinaryIO:
        """Opens image `i` as a file in an image format.

        Raises:
            OSError: If it cannot be read.
            ValueError: If it is no regular file, or too large.
            StorageError: If its store fails.
        """

    @abstractmethod
    def size(self, i: int) -> int:
        """Returns the bytes of image `i` as a file; 0 if it is gone."""

    @abstractmethod
    def name(self, i: int) -> str:
        """Returns what messages call image `i`."""

    def subset(self, ids: np.ndarray) -> "Split":
        """Returns the images `ids`, [k] int64, as a split of their own."""
        return Subset(self, ids)


@dataclass(frozen=True)
class Subset(Split):
    """Some images of a split.

    Attributes:
        whole: The split.
        ids: [n] int64, rows of `whole`.
    """

    whole: Split
    ids: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """Returns the classes of these images, [n] int64."""
        return self.whole.labels[self.ids]

    @property
    def levels(self) -> Levels | None:
        """Returns the levels of the whole split."""
        return self.whole.levels

    @property
    def remote(self) -> bool:
        """Returns whether the whole split's images have to be fetched from a store."""
        return self.whole.remote

    def __len__(self) -> int:
        return len(self.ids)

    def open(self, i: int) -> BinaryIO:
        """Opens image `i` of these; raises what the whole split's `open` raises."""
        return self.whole.open(int(self.ids[i]))

    def size(self, i: int) -> int:
        """Returns the bytes of image `i` of these."""
        return self.whole.size(int(self.ids[i]))

    def name(self, i: int) -> str:
        """Returns what messages call image `i` of these."""
        return self.whole.name(int(self.ids[i]))


class NamedBytes(io.BytesIO):
    """Bytes as a file that Pillow's messages call by a name instead of an address.

    Args:
        data: The content.
        name: What messages call it.
    """

    def __init__(self, data: bytes, name: str):
        super().__init__(data)
        self.called = name

    def __repr__(self) -> str:
        return self.called
