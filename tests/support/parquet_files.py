"""Parquet shards of small images, as Hugging Face's libraries write them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from support.tar_files import picture

IMAGE = {"_type": "Image"}
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def classes(*names: str) -> dict[str, Any]:
    """What the metadata say of a column of classes."""
    return {"_type": "ClassLabel", "names": list(names)}


def write(
    path: Path, images: Sequence[bytes | None], features: dict[str, dict] | None = None, groups: int = 100, **columns
) -> None:
    """Writes a shard of images with other columns, `groups` rows in each row group."""
    rows = [None if data is None else {"bytes": data, "path": f"{i}.png"} for i, data in enumerate(images)]
    table = pa.table({"image": pa.array(rows, STRUCT), **columns})
    described = {"info": {"features": {"image": IMAGE, **(features or {})}}}
    path.parent.mkdir(parents=True, exist_ok=True)
    table = table.replace_schema_metadata({"huggingface": json.dumps(described)})
    parquet.write_table(table, path, row_group_size=groups)


def labeled(path: Path, start: int, count: int, groups: int = 3) -> None:
    """Writes a shard of labeled images in two classes in turn, in row groups of which the last is smaller."""
    images = [picture(i) for i in range(start, start + count)]
    labels = [i % 2 for i in range(start, start + count)]
    write(path, images, {"label": classes("cat", "dog")}, groups, label=labels)
