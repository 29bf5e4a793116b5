"""Objects of a store, kept on this machine's disk up to a limit; whatever was not used for longest goes first."""

import os
from dataclasses import dataclass

import numpy as np

from ssl_core.data.dataset import NamedBytes
from ssl_core.data.decoding.deep_pixels import Levels
from ssl_core.errors import StorageError
from ssl_core.storage.object_cache import LIMIT_VARIABLE, cache_limit, open_cached, read_cached
from ssl_core.storage.object_store import Object

MAX_IMAGE_BYTES = 2**29  # bytes of an image file; a larger one is none


@dataclass(frozen=True)
class RemoteFiles:
    """Image files in a store; `labels` are -1 where there are none."""

    objects: list[Object]
    labels: np.ndarray  # [n] int64
    levels: Levels | None = None

    def __len__(self) -> int:
        return len(self.objects)

    def open(self, i: int) -> NamedBytes:
        """The bytes of image `i`. Raises ObjectNotFound, ValueError if it is too large, or StorageError."""
        if self.size(i) > min(MAX_IMAGE_BYTES, cache_limit()):
            raise ValueError(f"{self.size(i):,} bytes are more than an image has, or than {LIMIT_VARIABLE} allows")
        return NamedBytes(read_cached(self.objects[i]), self.name(i))

    def size(self, i: int) -> int:
        return self.objects[i].size

    def name(self, i: int) -> str:
        """What messages call image `i`."""
        return self.objects[i].url


@dataclass(frozen=True)
class RemoteShard:
    """A tar file in a store. It is opened for each read, so that the disk space of an evicted one is free at once."""

    obj: Object

    @property
    def name(self) -> str:
        return self.obj.url.rsplit("/", 1)[-1]

    def fetch(self) -> None:
        """Brings it here. Raises ObjectNotFound or StorageError."""
        open_cached(self.obj).close()

    def read(self, length: int, offset: int) -> bytes:
        """Raises StorageError: a shard is too much to go on without."""
        try:
            with open_cached(self.obj) as file:
                return os.pread(file.fileno(), length, offset)
        except OSError as error:
            raise StorageError(str(error)) from error
