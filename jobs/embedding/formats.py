"""Writes features with what is known of their images, a part at a time, as files that other programs read."""

import csv
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from jobs.embedding.content import Content
from ssl_core.storage.files import exists, read_json, write_json

KEY = "tilespin"  # of the record of what features are of, as JSON, in the metadata of a file
MOST_HEADER = 100_000_000  # bytes that safetensors allows a header
CSV, JSON = ".csv", ".json"  # added to the whole name of a file, for what lies beside it


class Format(NamedTuple):
    """Describes a format.

    Attributes:
        write: Writes a file, and those beside it, on a disk.
        describe: Returns what a file says that it is of, as JSON has it. It raises what reading raises if the file is
            another program's.
        companions: What is added to a file's name for the files beside it.
    """

    write: Callable[[Path, Content], None]
    describe: Callable[[Path], Any]
    companions: tuple[str, ...] = ()


def _write_parquet(path: Path, content: Content) -> None:
    """Writes a table with a row for each image, in a row group for each part."""
    import pyarrow
    from pyarrow import parquet

    number, text, several = pyarrow.int64(), pyarrow.string(), content.source.multilabel
    fields = {
        "id": number,
        "path": text,
        "split": text,
        "label": pyarrow.list_(number) if several else number,
        "label_name": pyarrow.list_(text) if several else text,
        "features": pyarrow.list_(pyarrow.float32(), content.record.width),
    }
    schema = pyarrow.schema(list(fields.items()), {KEY: json.dumps(content.record.document())})
    with parquet.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for rows, features in content.read():
            plain = (rows.ids, rows.paths, rows.splits, rows.numbers(), rows.names())
            columns = [pyarrow.array(column, kind) for column, kind in zip(plain, fields.values())]
            flat = pyarrow.array(features.reshape(-1))
            columns.append(pyarrow.FixedSizeListArray.from_arrays(flat, content.record.width))
            writer.write_table(pyarrow.Table.from_arrays(columns, schema=schema))


def _describe_parquet(path: Path) -> Any:
    from pyarrow import parquet

    with path.open("rb") as file:
        return json.loads(parquet.read_schema(file).metadata[KEY.encode()])


def _write_npy(path: Path, content: Content) -> None:
    """Writes the features alone, the rows as CSV beside them, and what the features are of as JSON."""
    with path.open("wb") as file:
        shape = (content.rows, content.record.width)
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype("<f4")), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        _write_features(file, path, content)
    write_json(companion(path, JSON), content.record.document())


def _describe_npy(path: Path) -> Any:
    return read_json(companion(path, JSON)) if exists(companion(path, JSON)) else None


def _write_safetensors(path: Path, content: Content) -> None:
    """Writes the tensors ids, labels and features, what the features are of as metadata, and the rows as CSV."""
    small = {"ids": ("I64", content.ids), "labels": ("BOOL" if content.source.multilabel else "I64", content.labels)}
    shapes = {name: (kind, array.shape, array.nbytes) for name, (kind, array) in small.items()}
    shapes["features"] = ("F32", (content.rows, content.record.width), 4 * content.rows * content.record.width)
    order = sorted(shapes, key=lambda name: ["I64", "F32", "BOOL"].index(shapes[name][0]))  # so each is aligned
    header: dict[str, Any] = {"__metadata__": {KEY: json.dumps(content.record.document())}}
    end = 0
    for name in order:
        kind, shape, size = shapes[name]
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            if name == "features":
                _write_features(file, path, content)
            else:
                file.write(small[name][1].tobytes())


def _describe_safetensors(path: Path) -> Any:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return json.loads(json.loads(file.read(min(length, MOST_HEADER)))["__metadata__"][KEY])


def _write_features(file: BinaryIO, path: Path, content: Content) -> None:
    """Writes the numbers of all features to `file`, and the rows as CSV beside `path`."""
    with companion(path, CSV).open("w", encoding="utf-8", newline="") as table:
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["id", "path", "split", "label", "label_name"])
        for rows, features in content.read():
            numbers, names = rows.numbers(), rows.names()
            if rows.several:
                numbers, names = map(json.dumps, numbers), map(json.dumps, names)
            writer.writerows(zip(rows.ids.tolist(), rows.paths, rows.splits, numbers, names))
            file.write(np.ascontiguousarray(features, "<f4").data)


def companion(path: Path, suffix: str) -> Path:
    """Returns the file beside `path` whose name has `suffix` in addition."""
    return path.with_name(path.name + suffix)


FORMATS = {
    ".parquet": Format(_write_parquet, _describe_parquet),
    ".npy": Format(_write_npy, _describe_npy, (CSV, JSON)),
    ".safetensors": Format(_write_safetensors, _describe_safetensors, (CSV,)),
}
