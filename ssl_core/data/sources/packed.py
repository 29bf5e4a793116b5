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
from ssl_core.data.encoded import Readable
from ssl_core.data.packing.index import FORMAT, INDEX, PARTS, PLAN, TABLE
from ssl_core.data.sampler import WINDOW
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
        table = (root / TABLE).read_bytes() if (root / TABLE).is_file() else b""
        return build_source(data, root.name, index, table, lambda shard: _check_shard(root, shard), size)


def parse_index(data: str, index: bytes) -> dict:
    """Parses the bytes of an index.json.

    Args:
        data: The value of --data, for messages.
        index: The file's bytes.

    Returns:
        The content, of the right format but not checked further.

    Raises:
        UserError: If it is damaged or of another format.
    """
    try:
        found = json.loads(index)
    except (ValueError, RecursionError) as error:
        raise UserError(f"--data {data}: {INDEX} is damaged: {error}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise UserError(f"--data {data}: {INDEX} is not of the format {FORMAT!r} that this version reads")
    return found


def build_source(
    data: str,
    name: str,
    index: dict,
    table: bytes,
    shard_of: Callable[[dict], Readable],
    size: int | None,
    windowed: bool = False,
) -> Source:
    """Makes the dataset that an index describes.

    Args:
        data: The value of --data, for messages.
        name: What the dataset is called.
        index: The content of index.json.
        table: The bytes of packed.npy.
        shard_of: Opens a shard by its entry in the index.
        size: The side in pixels that images are delivered at; None: the index's.
        windowed: Whether shards have to be fetched, and so are read a few at a time.

    Raises:
        UserError: If the index or the table is damaged.
    """
    try:
        listed = _shards_by_part(index)
        rows = _read_table(data, index, table, [shard for found in listed.values() for shard in found])
        shards = tuple(shard_of(shard) for found in listed.values() for shard in found)
        pieces = np.split(rows, [sum(shard["images"] for shard in listed["train"])])
        train, test = (
            Packed(part, shards, piece[:, :4].copy(), piece[:, 4].copy(), windowed)
            for part, piece in zip(PARTS, pieces)
        )
        total = hashlib.sha256(f"windows of {WINDOW}\n".encode() if windowed else b"")
        for part, found in listed.items():
            total.update("".join(f"{part} {shard['sha256']}\n" for shard in found).encode())
        size, side = size or index["size"], index["options"]["side"]
        notes = (f"packed at {side} px: images of {size} px are enlarged",) if size > side else ()
        return Source(
            name,
            total.hexdigest(),
            size,
            train,
            test,
            tuple(index["classes"]),
            tuple(index["mean"]),
            tuple(index["std"]),
            notes,
        )
    except UserError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise UserError(f"--data {data}: {INDEX} is damaged: {type(error).__name__} {error}") from error


def _check_shard(root: Path, shard: dict) -> Shard:
    """Opens a shard, which is checked by its size only: hashing all shards would take as long as an epoch."""
    path = root / Path(shard["name"]).name
    if not path.is_file():
        raise UserError(f"{path} is missing: run the same tilespin pack again, it writes only what is missing")
    if (found := path.stat().st_size) != shard["bytes"]:
        raise UserError(f"{path} has {found:,} bytes instead of {shard['bytes']:,}: run the same tilespin pack again")
    return Shard(path, shard["sha256"])


def _shards_by_part(index: dict) -> dict[str, list[dict]]:
    """Returns the entries of the shards of each part. Raises ValueError if a value is out of range, and KeyError,
    TypeError or AttributeError for other JSON than `tilespin pack` writes."""
    listed = {part: index["splits"][part]["shards"] for part in PARTS}
    if not listed["train"]:
        raise ValueError("no shards to train on")
    for shard in (shard for found in listed.values() for shard in found):
        for entry in ("images", "bytes"):
            if type(shard[entry]) is not int or not 0 < shard[entry] < 2**62:
                raise ValueError(f"{entry} of a shard are {shard[entry]!r:.40}")
        if not shard["name"].endswith(".tar") or "/" in shard["name"] or type(shard["sha256"]) is not str:
            raise ValueError(f"a shard has the name {shard['name']!r:.40}")
    if not all(8 <= side <= 4096 and type(side) is int for side in (index["size"], index["options"]["side"])):
        raise ValueError("a size is not 8 to 4096 pixels")
    if not all(type(name) is str for name in index["classes"]):
        raise ValueError("the name of a class is none")
    for entry, least in (("mean", 0), ("std", 1e-3)):
        if len(index[entry]) != 3 or not all(least <= value <= 255 for value in index[entry]):
            raise ValueError(f"{entry} is {index[entry]!r:.40}")
    return listed


def _read_table(data: str, index: dict, table: bytes, shards: list[dict]) -> np.ndarray:
    """Returns the table, [n, 5] int64: the columns of Packed.offsets and the label. Raises UserError unless it fits the
    shards."""
    if hashlib.sha256(table).hexdigest() != index["table_sha256"]:
        raise UserError(f"--data {data}: {TABLE} is missing or damaged: run the same tilespin pack again")
    damaged = UserError(f"--data {data}: {TABLE} does not fit {INDEX}: pack it again")
    try:
        rows = np.lib.format.read_array(io.BytesIO(table), allow_pickle=False)
    except (*UNREADABLE, TokenError) as error:
        raise damaged from error
    counts, ends = ([shard[entry] for shard in shards] for entry in ("images", "bytes"))
    if rows.dtype != np.int64 or rows.shape != (sum(counts), 5):
        raise damaged
    shard, offset, length, number, label = rows.T
    room = np.repeat(ends, counts) - length  # what a row may lie behind; no sum of two, which could overflow
    inside = (length >= 0) & (offset >= 0) & (offset <= room) & (number >= 0) & (label >= -1)
    most = len(index["classes"]) or 2**31
    if not (inside & (label < most) & (shard == np.repeat(np.arange(len(counts)), counts))).all():
        raise damaged
    return rows
