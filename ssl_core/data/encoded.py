"""What loaders ask of images that are decoded when they are needed, wherever their bytes are."""

import io
from typing import BinaryIO, Protocol

import numpy as np

from ssl_core.data.decoding.deep_pixels import Levels


class Encoded(Protocol):
    """A split of image files that are decoded when they are needed; several threads may open them at once."""

    @property
    def labels(self) -> np.ndarray:
        """Returns the images' classes, [n] int64, -1 where there are none."""
        ...

    @property
    def levels(self) -> Levels | None:
        """Returns the values of images of more than eight bits that become black and white; None: not looked at."""
        ...

    def __len__(self) -> int: ...

    def open(self, i: int) -> BinaryIO:
        """Opens image `i`.

        Raises:
            OSError: If it cannot be read.
            ValueError: If it is no regular file, or too large.
            StorageError: If its store fails.
        """
        ...

    def size(self, i: int) -> int:
        """Returns the bytes of image `i`; 0 if its file is gone."""
        ...

    def name(self, i: int) -> str:
        """Returns what messages call image `i`."""
        ...


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
