"""Images in Parquet shards: each shard's are written out once, into the cache, from where any one is read at once.

A row group can only be decoded as a whole, so that reading single images in random order from the shards themselves
would decode each row group again and again.
"""

import hashlib
import io
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from ssl_core.errors import StorageError
from ssl_core.storage.object_cache import open_cached
from ssl_core.storage.object_store import Object, is_url, read
from ssl_core.storage.retry import RetryDeadline

BUFFER_BYTES = 2**21  # of a shard that are read at a time
BATCH_ROWS = 32  # images that are decoded at a time
PLACE = struct.Struct("<qq")  # of a row in the file of images: where its bytes begin, and how many they are
NOTHING = -1  # for both, where a row has no bytes that can be read


@dataclass(frozen=True)
class ParquetShard:
    """A Parquet file of images, on a disk or in a store.

    Attributes:
        obj: The file; its URL may be a path.
        column: The column of the images' bytes, such as "image.bytes".
        rows: How many there are.
        capacity: How many bytes its images have at most, with the list of their places.
    """

    obj: Object
    column: str
    rows: int
    capacity: int

    @property
    def name(self) -> str:
        """Returns the file's name without its folder."""
        return self.obj.url.rsplit("/", 1)[-1]

    @property
    def size(self) -> int:
        """Returns the bytes that it takes in the cache."""
        return self.capacity

    def fetch(self) -> None:
        """Writes its images into the cache, unless they are there.

        Raises:
            ObjectNotFound: If the store does not have it any more.
            StorageError: If the store or the disk fails, or the file has changed.
        """
        self._open().close()

    def read_row(self, row: int) -> bytes:
        """Returns the bytes of the image in a row.

        Raises:
            ValueError: If there are none, or they lie in a damaged part of the shard.
            StorageError: If the shard cannot be read, or is not there any more: training cannot go on without it.
        """
        try:
            with self._open() as file:
                start, length = _place(file, row)
                if start != NOTHING:
                    return os.pread(file.fileno(), length, start)
        except OSError as error:
            raise StorageError(str(error)) from error
        raise ValueError("its row has no bytes, or is damaged")

    def row_bytes(self, row: int) -> int:
        """Returns how many bytes the image in a row has; 0 if there are none. Raises what `read_row` raises."""
        try:
            with self._open() as file:
                return max(0, _place(file, row)[1])
        except OSError as error:
            raise StorageError(str(error)) from error

    def _open(self) -> io.FileIO:
        of = Object(f"{self.obj.url}#{self.column}", self.capacity, self.obj.stamp)
        return open_cached(of, self._write_images)

    def _write_images(self, file: BinaryIO, deadline: RetryDeadline) -> None:
        """Writes the place of each row, then the images; equal images once."""
        places = np.full((self.rows, 2), NOTHING, np.int64)
        known: dict[bytes, tuple[int, int]] = {}
        end = self.rows * PLACE.size
        file.seek(end)
        with open_shard(self.obj, deadline) as shard:
            try:
                reader = parquet.ParquetFile(shard, buffer_size=BUFFER_BYTES, pre_buffer=False)
                counts = [reader.metadata.row_group(i).num_rows for i in range(reader.num_row_groups)]
            except (pa.ArrowException, OSError) as error:
                raise StorageError(f"{self.obj.url} cannot be read: {error}") from error
            if sum(counts) != self.rows:
                raise StorageError(f"{self.obj.url} has changed since it was opened")
            for group, (row, stop) in enumerate(pairwise(accumulate(counts, initial=0))):
                for data in _group_images(reader, group, self.column):
                    if data is not None and row < stop:
                        key = hashlib.sha256(data).digest()
                        if key not in known:
                            known[key] = (end, len(data))
                            end += len(data)
                            if end > self.capacity:
                                raise StorageError(f"{self.obj.url} has larger images than its footer says")
                            file.write(data)
                        places[row] = known[key]
                    row += 1
                deadline.renew()
        file.seek(0)
        file.write(places.astype("<i8").tobytes())


def _place(file: io.FileIO, row: int) -> tuple[int, int]:
    start, length = PLACE.unpack(os.pread(file.fileno(), PLACE.size, row * PLACE.size))
    return start, length


def _group_images(reader: parquet.ParquetFile, group: int, column: str) -> Iterator[bytes | None]:
    """Yields the bytes of each image of a row group, None for a row without, up to where the group is damaged."""
    try:
        for batch in reader.iter_batches(BATCH_ROWS, [group], [column], use_threads=False):
            for value in batch.column(0).to_pylist():
                data = value.get("bytes") if isinstance(value, dict) else value
                yield data if isinstance(data, bytes) else None
    except (pa.ArrowException, OSError) as error:
        if getattr(error, "errno", None):  # of the disk, not of the file
            raise StorageError(str(error)) from error


@contextmanager
def open_shard(obj: Object, deadline: RetryDeadline) -> Iterator[BinaryIO]:
    """Opens a file on a disk or in a store, of which only what is asked for is fetched.

    Args:
        obj: The file; its URL may be a path.
        deadline: Until when a failing store is asked again; begins anew with each success.

    Yields:
        The file.

    Raises:
        ObjectNotFound: If it is not in the store any more.
        StorageError: If the store fails, or the file on the disk has changed.
    """
    if is_url(obj.url):
        with io.BufferedReader(_StoredFile(obj, deadline), BUFFER_BYTES) as file:
            yield file
    else:
        with open(obj.url, "rb") as file:
            if file_stamp(os.fstat(file.fileno())) != obj.stamp:
                raise StorageError(f"{obj.url} has changed since it was opened")
            yield file


def file_stamp(state: os.stat_result) -> str:
    """Returns what tells a file from another that was at its path before."""
    return f"{state.st_size} {state.st_mtime_ns}"


def local_object(path: Path) -> Object:
    """Returns a file on a disk as `open_shard` takes it."""
    state = path.stat()
    return Object(str(path), state.st_size, file_stamp(state))


class _StoredFile(io.RawIOBase):
    """A file in a store, read in parts."""

    def __init__(self, obj: Object, deadline: RetryDeadline):
        self.obj, self.deadline, self.position = obj, deadline, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.obj.size}[whence]
        return self.position

    def readinto(self, buffer) -> int:
        stop = min(self.position + len(buffer), self.obj.size)
        if stop <= self.position:
            return 0
        data = read(self.obj, self.position, stop, self.deadline)
        self.deadline.renew()
        buffer[: len(data)] = data
        self.position = stop
        return len(data)
