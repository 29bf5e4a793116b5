"""Finds images and labels in Parquet shards by their footers and labels alone; what is found is kept in the cache."""

import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from ssl_core.data.label_table import LABEL_COLUMNS
from ssl_core.data.labeling import NO_LABEL, label_text
from ssl_core.data.parquet_schema import class_names, features, with_names
from ssl_core.data.parquet_shards import PLACE, ParquetShard, open_shard
from ssl_core.data.tar_shards import lines_digest
from ssl_core.errors import TilespinError, UserError, choose, some
from ssl_core.storage import cache
from ssl_core.storage.object_store import Object
from ssl_core.storage.retry import RetryDeadline

SCAN = 1  # raise when the same shards would be understood in another way
IMAGE_COLUMNS = ("image", "img")  # of several with images, the first that is there counts
MAX_THREADS = 8  # shards whose footers are read at a time
KEYS = ("shards", "labels", "texts")


class ParquetScan(NamedTuple):
    """What is in some Parquet files.

    Attributes:
        shards: Those that have images; `used` says which of the files they are.
        used: [s] int64.
        labels: Of all images, in the shards' order: [n] int64, rows of `values`, NO_LABEL for none; or, where an image
            may have several, [n, len(values)] bool.
        values: The labels as texts.
        notes: For the user.
    """

    shards: tuple[ParquetShard, ...]
    used: np.ndarray
    labels: np.ndarray
    values: tuple[str, ...]
    notes: tuple[str, ...]


class _Found(NamedTuple):
    """What is in one file: `image` is "" if it has no column of images, `damage` why it cannot be read."""

    image: str = ""
    rows: int = 0
    capacity: int = 0
    label: str = ""
    labels: Sequence[Any] = ()
    notes: tuple[str, ...] = ()
    damage: str = ""


def scan_cached(files: Sequence[Object], column: str | None) -> ParquetScan:
    """Finds what is in some Parquet files, from the cache if they were scanned before.

    Args:
        files: The files, in the order that ids follow; URLs may be paths.
        column: The column of the labels; "": none; None: the one of classes, or one that is called `label`.

    Raises:
        UserError: If it is not clear which column has the labels, or a disk cannot read a file.
        StorageError: If a store fails.
    """
    key = lines_digest([f"scan {SCAN} {column}", *(f"{obj.url}\0{obj.size}\0{obj.stamp}" for obj in files)])
    found = cache.cached_arrays(f"parquet-{key[:16]}", lambda: _scan(files, column), KEYS)
    texts = json.loads(found["texts"].tobytes())
    shards = [
        ParquetShard(files[number], texts["columns"][i], rows, capacity)
        for i, (number, rows, capacity) in enumerate(found["shards"].tolist())
    ]
    labels, used = np.array(found["labels"]), np.array(found["shards"][:, 0])
    return ParquetScan(tuple(shards), used, labels, tuple(texts["values"]), tuple(texts["notes"]))


def _scan(files: Sequence[Object], column: str | None) -> dict[str, np.ndarray]:
    """Returns the arrays of a ParquetScan; `texts` is JSON as uint8."""
    with ThreadPoolExecutor(MAX_THREADS, "looks") as pool:
        found = list(pool.map(lambda obj: _scan_file(obj, column), files))
    used = [number for number, one in enumerate(found) if one.rows]
    names = [obj.url.rsplit("/", 1)[-1] for obj in files]
    notes = [f"{names[i]} is damaged and not used: {one.damage}" for i, one in enumerate(found) if one.damage]
    if without := [names[i] for i, one in enumerate(found) if not one.image and not one.damage]:
        notes.append(f"without a column of images: {some(without)}")
    notes += dict.fromkeys(note for one in found for note in one.notes)
    columns = sorted({found[i].label for i in used} - {""})
    if len(columns) > 1:
        raise UserError(f"labels are in other columns of other files: {', '.join(columns)}")
    labels, values, note = _read_labels([value for i in used for value in found[i].labels])
    notes += [note] if note else []
    if columns:
        notes.append(f"labels from column {columns[0]}")
    texts = {"columns": [found[i].image for i in used], "values": values, "notes": notes}
    return {
        "shards": np.array([(i, found[i].rows, found[i].capacity) for i in used], np.int64).reshape(-1, 3),
        "labels": labels,
        "texts": np.frombuffer(json.dumps(texts).encode(), np.uint8),
    }


def _scan_file(obj: Object, column: str | None) -> _Found:
    try:
        with open_shard(obj, RetryDeadline()) as file:
            reader = parquet.ParquetFile(file, pre_buffer=False)
            schema, rows = reader.schema_arrow, reader.metadata.num_rows
            images = _image_columns(schema)
            if not images or not rows:
                return _Found()
            image, capacity = next(iter(images.items()))[1], 0
            for group in map(reader.metadata.row_group, range(reader.num_row_groups)):
                chunks = [group.column(i) for i in range(group.num_columns)]
                capacity += sum(one.total_uncompressed_size for one in chunks if one.path_in_schema == image)
            if not 0 <= capacity < 2**62 or not 0 < rows <= obj.size:  # an image takes a byte at least
                return _Found(damage="its footer is wrong")
            label, notes = _label_column(obj.url.rsplit("/", 1)[-1], schema, set(images), column)
            labels: list = [None] * rows
            if label:
                labels = reader.read([label], use_threads=False).column(0).to_pylist()
                names = class_names(schema).get(label)
                labels = [with_names(value, names) for value in labels] if names else labels
            if len(images) > 1:
                notes = (*notes, f"images from column {next(iter(images))}, not from {some([*images][1:])}")
            return _Found(image, rows, capacity + rows * PLACE.size, label, labels, notes)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, TilespinError | FileNotFoundError):
            raise
        if isinstance(error, OSError) and error.errno:  # of the disk, not of the file
            raise UserError(f"{obj.url} cannot be read: {error.strerror}") from error
        return _Found(damage=" ".join(str(error).split())[:200])


def _image_columns(schema: pa.Schema) -> dict[str, str]:
    """Returns the columns of images and, for each, that of the bytes; the one to read comes first."""
    described = {name for name, feature in features(schema).items() if feature.get("_type") == "Image"}
    found = {}
    for field in schema:
        of, kind = field.name, field.type
        children = [kind.field(i) for i in range(kind.num_fields)] if pa.types.is_struct(kind) else []
        if any(child.name == "bytes" and _is_binary(child.type) for child in children):
            found[of] = f"{of}.bytes"
        elif _is_binary(kind) and (of in described or of.lower() in IMAGE_COLUMNS):
            found[of] = of
    rank = {name: i for i, name in enumerate(IMAGE_COLUMNS)}
    return dict(sorted(found.items(), key=lambda one: rank.get(one[0].lower(), len(rank))))


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _label_column(name: str, schema: pa.Schema, images: set[str], asked: str | None) -> tuple[str, tuple[str, ...]]:
    """Returns the column of the labels, "" if there is none, and notes for the user."""
    columns = [field.name for field in schema if field.name not in images and not pa.types.is_struct(field.type)]
    if asked is not None:
        if asked and asked not in columns:
            raise UserError(f"{name} has no column {asked!r}: {choose(asked, columns)}")
        return asked, ()
    usual = [column for known in LABEL_COLUMNS for column in columns if column.lower() == known]
    of_classes = [column for column in class_names(schema) if column in columns]
    if usual or len(of_classes) == 1:
        return (usual or of_classes)[0], ()
    if of_classes:
        raise UserError(
            f"{name}: labels may be in any of {some(of_classes, 8)}: name the column behind the value of --data, as in "
            f"DATA#{of_classes[0]}, or DATA# for none"
        )
    if not columns:
        return "", ()
    return "", (f"no column is known for labels, DATA#COLUMN names one of {some(columns, 8)}",)


def _read_labels(given: list[Any]) -> tuple[np.ndarray, list[str], str]:
    """Returns labels as in ParquetScan, their values, and a note about those that cannot be used, or ""."""
    unusable: Counter[str] = Counter()

    def texts(value: Any) -> tuple[str, ...]:
        try:
            of = (label_text(one) for one in (value if isinstance(value, list) else [value]))
            return tuple(dict.fromkeys(text for text in of if text is not None))
        except ValueError as error:
            unusable[str(error)] += 1
            return ()

    found = [texts(value) for value in given]
    values = sorted({text for of in found for text in of})
    number = {value: i for i, value in enumerate(values)}
    if any(isinstance(value, list) for value in given):
        labels = np.zeros((len(found), len(values)), bool)
        for row, of in enumerate(found):
            labels[row, [number[text] for text in of]] = True
    else:
        labels = np.array([number[of[0]] if of else NO_LABEL for of in found], np.int64)
    note = f"{unusable.total():,} labels cannot be used, such as {next(iter(unusable))}" if unusable else ""
    return labels, values, note
