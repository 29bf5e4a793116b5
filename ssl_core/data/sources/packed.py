"""A dataset that `tilespin pack` wrote: tar shards, and an index that says where each image lies in them."""

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from tokenize import TokenError

import numpy as np

from ssl_core.data.data_source import DataSource
from ssl_core.data.dataset import Packed, Shard, Source
from ssl_core.data.decoding.decode import UNREADABLE
from ssl_core.data.packing.index import INDEX, LABELS, PLAN, TABLE
from ssl_core.data.packing.record import PARTS, PackIndex, ShardEntry
from ssl_core.data.sampler import WINDOW
from ssl_core.data.split import Readable
from ssl_core.errors import UserError


class PackedFolder(DataSource):
    """Opens a folder that `tilespin pack` wrote."""

    def opens(self, data: str) -> bool:
        """Returns whether a value of --data is a folder that `tilespin pack` has written to, finished or not."""
        root = Path(data).expanduser()
        return (root / TABLE).is_file() or (root / PLAN).is_file()

    def load(self, data: str, size: int | None) -> Source:
        """Opens a packed dataset.

        Args:
            data: Its folder.
            size: The side in pixels that images are delivered at; None: the one of its index.

        Raises:
            UserError: If the packing was not finished, or a file is missing, of another size or damaged.
        """
        root = Path(data).expanduser().resolve()
        if not (root / INDEX).is_file():
            raise UserError(f"--data {data}: not packed to the end; run the same tilespin pack again")
        index = parse_index(data, (root / INDEX).read_bytes())

        def read_file(name: str, sha256: str) -> bytes:
            return (root / name).read_bytes() if (root / name).is_file() else b""

        return build_source(data, root.name, index, read_file, lambda shard: _check_shard(root, shard), size)


def parse_index(data: str, index: bytes) -> PackIndex:
    """Parses and checks the bytes of an index.json.

    Args:
        data: The value of --data, for messages.
        index: The file's bytes.

    Raises:
        UserError: If it is damaged or of another version.
    """
    try:
        found = json.loads(index)
    except (ValueError, RecursionError) as error:
        raise UserError(f"--data {data}: {INDEX} is damaged: {error}") from error
    record = PackIndex.parse(found, f"--data {data}: {INDEX}")
    if why := record.problem():
        raise UserError(f"--data {data}: {INDEX} is damaged: {why}")
    return record


def build_source(
    data: str,
    name: str,
    index: PackIndex,
    read_file: Callable[[str, str], bytes],
    shard_of: Callable[[ShardEntry], Readable],
    size: int | None,
    windowed: bool = False,
) -> Source:
    """Makes the dataset that an index describes.

    Args:
        data: The value of --data, for messages.
        name: What the dataset is called.
        index: What index.json says.
        read_file: Reads a file beside it, by its name and the sha256 that it should have; b"" if there is none.
        shard_of: Opens a shard by its entry in the index.
        size: The side in pixels that images are delivered at; None: the index's.
        windowed: Whether shards have to be fetched, and so are read a few at a time.

    Raises:
        UserError: If the table, or that of several labels, is damaged.
    """
    entries = [entry for part in PARTS for entry in index.part(part)]

    def read_array(name: str, sha256: str) -> np.ndarray:
        return _parse_array(data, name, read_file(name, sha256), sha256)

    rows = read_array(TABLE, index.table_sha256)
    _check_rows(data, index, rows, entries)
    labels = rows[:, 4].copy()
    if index.labels_sha256:
        labels = _unpack_labels(data, read_array(LABELS, index.labels_sha256), len(rows), len(index.classes))
    shards = tuple(shard_of(entry) for entry in entries)
    first = sum(entry.images for entry in index.part("train"))
    train, test = (
        Packed(part, shards, rows[of, :4].copy(), labels[of], windowed)
        for part, of in zip(PARTS, (slice(first), slice(first, None)))
    )
    total = hashlib.sha256(f"windows of {WINDOW}\n".encode() if windowed else b"")
    for part in PARTS:
        total.update("".join(f"{part} {entry.sha256}\n" for entry in index.part(part)).encode())
    size, side = size or index.size, index.options.side
    notes = (f"packed at {side} px: images of {size} px are enlarged",) if size > side else ()
    return Source(name, total.hexdigest(), size, train, test, index.classes, index.mean, index.std, notes)


def _check_shard(root: Path, shard: ShardEntry) -> Shard:
    """Opens a shard, which is checked by its size only: hashing all shards would take as long as an epoch."""
    path = root / Path(shard.name).name
    if not path.is_file():
        raise UserError(f"{path} is missing: run the same tilespin pack again, it writes only what is missing")
    if (found := path.stat().st_size) != shard.bytes:
        raise UserError(f"{path} has {found:,} bytes instead of {shard.bytes:,}: run the same tilespin pack again")
    return Shard(path, shard.sha256)


def _parse_array(data: str, name: str, file: bytes, sha256: str) -> np.ndarray:
    """Returns the array in a .npy file. Raises UserError if it is not the one that the index tells of."""
    if hashlib.sha256(file).hexdigest() != sha256:
        raise UserError(f"--data {data}: {name} is missing or damaged: run the same tilespin pack again")
    try:
        return np.lib.format.read_array(io.BytesIO(file), allow_pickle=False)
    except (*UNREADABLE, TokenError) as error:
        raise _misfit(data, name) from error


def _misfit(data: str, name: str) -> UserError:
    return UserError(f"--data {data}: {name} does not fit {INDEX}: pack it again")


def _unpack_labels(data: str, bits: np.ndarray, images: int, classes: int) -> np.ndarray:
    """Returns the labels in labels.npy, [images, classes] bool. Raises UserError if it is of other images."""
    if bits.dtype != np.uint8 or bits.shape != (images, -(-classes // 8)) or not classes:
        raise _misfit(data, LABELS)
    return np.unpackbits(bits, axis=1, count=classes).astype(bool)


def _check_rows(data: str, index: PackIndex, rows: np.ndarray, shards: list[ShardEntry]) -> None:
    """Raises UserError unless the table, [n, 5] int64, the columns of Packed.offsets and the label, fits the shards."""
    counts, ends = [shard.images for shard in shards], [shard.bytes for shard in shards]
    if rows.dtype != np.int64 or rows.shape != (sum(counts), 5):
        raise _misfit(data, TABLE)
    shard, offset, length, number, label = rows.T
    room = np.repeat(ends, counts) - length  # what a row may lie behind; no sum of two, which could overflow
    inside = (length >= 0) & (offset >= 0) & (offset <= room) & (number >= 0) & (label >= -1)
    most = len(index.classes) or 2**31
    if not (inside & (label < most) & (shard == np.repeat(np.arange(len(counts)), counts))).all():
        raise _misfit(data, TABLE)
