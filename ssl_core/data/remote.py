"""Objects of a store, kept on this machine's disk up to a limit; whatever was not used for longest goes first."""

import os
from dataclasses import dataclass

import numpy as np

from ssl_core.data.dataset import Named
from ssl_core.data.decoding.deep_pixels import Levels
from ssl_core.errors import StoreFailed
from ssl_core.storage.object_cache import LIMIT, content, limit, opened
from ssl_core.storage.object_store import Object

LARGEST = 2**29  # bytes of an image file; a larger one is none


@dataclass(frozen=True)
class RemoteFiles:
    """Image files in a store; `labels` are -1 where there are none."""

    things: list[Object]
    labels: np.ndarray  # [n] int64
    levels: Levels | None = None

    def __len__(self) -> int:
        return len(self.things)

    def open(self, i: int) -> Named:
        """The bytes of image `i`. Raises Gone, ValueError if it is too large, or StoreFailed."""
        if self.size(i) > min(LARGEST, limit()):
            raise ValueError(f"{self.size(i):,} bytes are more than an image has, or than {LIMIT} allows")
        return Named(content(self.things[i]), self.name(i))

    def size(self, i: int) -> int:
        return self.things[i].size

    def name(self, i: int) -> str:
        """What messages call image `i`."""
        return self.things[i].url


@dataclass(frozen=True)
class RemoteShard:
    """A tar file in a store. It is opened for each read, so that the disk space of an evicted one is free at once."""

    thing: Object

    @property
    def name(self) -> str:
        return self.thing.url.rsplit("/", 1)[-1]

    def fetch(self) -> None:
        """Brings it here. Raises Gone or StoreFailed."""
        opened(self.thing).close()

    def read(self, length: int, offset: int) -> bytes:
        """Raises StoreFailed: a shard is too much to go on without."""
        try:
            with opened(self.thing) as file:
                return os.pread(file.fileno(), length, offset)
        except OSError as error:
            raise StoreFailed(str(error)) from error
