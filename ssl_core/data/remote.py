"""Image files and tar shards in a store, read through the cache on this machine's disk."""

import os
from dataclasses import dataclass

import numpy as np

from ssl_core.data.decoding.deep_pixels import Levels
from ssl_core.data.split import NamedBytes, Split
from ssl_core.errors import StorageError
from ssl_core.storage.object_cache import LIMIT_VARIABLE, cache_limit, open_cached, read_cached
from ssl_core.storage.object_store import Object

MAX_IMAGE_BYTES = 2**29  # bytes; a larger file is taken for no image


@dataclass(frozen=True)
class RemoteFiles(Split):
    """A split of image files in a store, which are fetched and decoded when they are needed.

    Attributes:
        objects: The files.
        labels: [n] int64, -1 where there are none.
        levels: As in Split.
    """

    objects: list[Object]
    labels: np.ndarray
    levels: Levels | None = None

    @property
    def remote(self) -> bool:
        """Returns True."""
        return True

    def open(self, i: int) -> NamedBytes:
        """Fetches image `i`, unless it is in the cache, and returns its bytes as a file.

        Raises:
            ObjectNotFound: If the store does not have it any more.
            ValueError: If it is too large for an image or for the cache.
            StorageError: If the store fails.
        """
        if self.size(i) > min(MAX_IMAGE_BYTES, cache_limit()):
            raise ValueError(f"{self.size(i):,} bytes are more than an image has, or than {LIMIT_VARIABLE} allows")
        return NamedBytes(read_cached(self.objects[i]), self.name(i))

    def size(self, i: int) -> int:
        """Returns the bytes of image `i`."""
        return self.objects[i].size

    def name(self, i: int) -> str:
        """Returns the URL of image `i`."""
        return self.objects[i].url


@dataclass(frozen=True)
class RemoteShard:
    """A tar file in a store. It is opened for each read, so that the disk space of an evicted one is free at once.

    Attributes:
        obj: The file.
    """

    obj: Object

    @property
    def name(self) -> str:
        """Returns the last part of its URL."""
        return self.obj.url.rsplit("/", 1)[-1]

    @property
    def size(self) -> int:
        """Returns its bytes."""
        return self.obj.size

    def fetch(self) -> None:
        """Fetches it into the cache, unless it is there.

        Raises:
            ObjectNotFound: If the store does not have it any more.
            StorageError: If the store fails.
        """
        open_cached(self.obj).close()

    def read(self, length: int, offset: int) -> bytes:
        """Returns `length` bytes from byte `offset` on.

        Raises:
            StorageError: If it cannot be read, or is not there any more: training cannot go on without a shard.
        """
        try:
            with open_cached(self.obj) as file:
                return os.pread(file.fileno(), length, offset)
        except OSError as error:
            raise StorageError(str(error)) from error
