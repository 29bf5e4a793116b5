"""A dataset that `tilespin pack` wrote: tar shards, and an index that says where each image lies in them."""

import hashlib
import io
from pathlib import Path

import numpy as np

from ssl_core.data.pack_index import FORMAT, INDEX, PLAN, TABLE
from ssl_core.data.source import Packed, Shard, Source
from ssl_core.errors import BadInput
from ssl_core.files import read_json


def opens(data: str) -> bool:
    root = Path(data).expanduser()
    return (root / TABLE).is_file() or (root / PLAN).is_file()


def load(data: str, size: int | None) -> Source:
    """Raises BadInput if the packing was not finished, or a file is missing, of another size or damaged."""
    root = Path(data).expanduser().resolve()
    if not (root / INDEX).is_file():
        raise BadInput(f"--data {data}: not packed to the end; run the same tilespin pack again")
    index = read_json(root / INDEX)
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise BadInput(f"--data {data}: {INDEX} is not of the format {FORMAT!r} that this version reads")
    try:
        return _load(root, index, size)
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"--data {data}: {INDEX} is damaged: {type(error).__name__} {error}") from error


def _load(root: Path, index: dict, size: int | None) -> Source:
    listed = {part: index["splits"][part]["shards"] for part in ("train", "test")}
    shards = tuple(_checked(root, shard) for found in listed.values() for shard in found)
    table = _table(root, index["table_sha256"])
    counts = {part: sum(shard["images"] for shard in found) for part, found in listed.items()}
    rows = dict(zip(counts, np.split(table, [counts["train"]])))
    splits = [Packed(part, shards, rows[part][:, :4].copy(), rows[part][:, 4].copy()) for part in counts]
    total = hashlib.sha256()
    for part, found in listed.items():
        total.update("".join(f"{part} {shard['sha256']}\n" for shard in found).encode())
    size, side = size or index["size"], index["options"]["side"]
    notes = (f"{root.name} was packed at {side} px: images of {size} px are enlarged",) if size > side else ()
    return Source(
        root.name, total.hexdigest(), size, *splits, tuple(index["classes"]), tuple(index["mean"]),
        tuple(index["std"]), notes,
    )  # fmt: skip


def _checked(root: Path, shard: dict) -> Shard:
    """By its size only: hashing the shards would cost as much as an epoch."""
    path = root / Path(shard["name"]).name
    if not path.is_file():
        raise BadInput(f"{path} is missing: run the same tilespin pack again, it writes only what is missing")
    if (found := path.stat().st_size) != shard["bytes"]:
        raise BadInput(f"{path} has {found:,} bytes instead of {shard['bytes']:,}: run the same tilespin pack again")
    return Shard(path, shard["sha256"])


def _table(root: Path, sha256: str) -> np.ndarray:
    """[n, 5] int64, the columns of Packed.places and the label."""
    path = root / TABLE
    data = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(data).hexdigest() != sha256:
        raise BadInput(f"{path} is missing or damaged: run the same tilespin pack again")
    return np.load(io.BytesIO(data), allow_pickle=False)
