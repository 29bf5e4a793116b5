"""Reads the labels and splits of image files from tables: CSV, JSON lines or Parquet."""

import io
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import csv, parquet

from ssl_core.data.labeling import label_in_text, label_text
from ssl_core.data.parquet_schema import class_names, with_names
from ssl_core.errors import UserError, choose, some
from ssl_core.storage.object_store import is_url

FILE_COLUMNS = ("file_name", "filename", "file", "path")  # the first is Hugging Face's
LABEL_COLUMNS = ("label", "labels")
SPLIT_COLUMN = "split"
SEPARATOR = "|"  # of several labels of an image in a CSV file
DELIMITERS = ",;\t"


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        file: The path of an image, from the table's folder on.
        labels: The image's labels as texts; none if it is empty or cannot be used.
        split: The name of the split, "" if the table does not say it.
    """

    file: str
    labels: tuple[str, ...]
    split: str


class Table(NamedTuple):
    """What a table says.

    Attributes:
        rows: The rows.
        label_column: The name of the labels' column, "" if there is none.
        split_column: The name of the splits' column, "" if there is none.
        several: Whether an image may have several labels.
        notes: About labels that cannot be used, for the user.
    """

    rows: list[Row]
    label_column: str
    split_column: str
    several: bool
    notes: list[str]


def split_column(data: str) -> tuple[str, str | None]:
    """Splits a value of --data such as `birds#species`.

    Args:
        data: A path or a URL, perhaps with the name of a column behind the last #.

    Returns:
        The path or URL; and the column of the labels, "" if no table is to be read, None if the value does not say it.
    """
    place, mark, column = data.rpartition("#")
    if not mark or not place or "/" in column or (not is_url(data) and Path(data).expanduser().exists()):
        return data, None
    return place, column


def name_with_column(name: str, column: str | None) -> str:
    """Returns the name of a dataset, with the column of the labels if one was asked for: others have other labels."""
    return f"{name}#{column}" if column else name


def parse_table(name: str, data: bytes, column: str | None) -> Table | None:
    """Parses a table of image files.

    Args:
        name: The table's path for messages, by whose extension its format is known: csv, jsonl or parquet.
        data: Its bytes.
        column: The column of the labels; None: `label`, or the only one that is neither file nor split.

    Returns:
        The table, or None if none of its columns is one of FILE_COLUMNS.

    Raises:
        UserError: If it is damaged, or it is not clear which column has the labels.
    """
    parse, read = _PARSERS[name.rpartition(".")[2].lower()]
    try:
        columns = parse(data)
    except (pa.ArrowException, OSError, ValueError, RecursionError) as error:
        raise UserError(f"{name} cannot be read: {' '.join(str(error).split())[:200]}") from error
    by_name = {key.lower(): key for key in reversed(columns)}
    file = next((by_name[known] for known in FILE_COLUMNS if known in by_name), None)
    if file is None:
        return None
    split = by_name.get(SPLIT_COLUMN, "")
    label = _choose_column(name, column, [key for key in columns if key not in (file, split)])
    given = columns[label] if label else []
    several = any(isinstance(value, list) or (read is _csv_label and SEPARATOR in value) for value in given)
    unusable: Counter[str] = Counter()

    def labels_of(value: Any) -> tuple[str, ...]:
        split_up = several and read is _csv_label
        values = value.split(SEPARATOR) if split_up else value if isinstance(value, list) else [value]
        try:
            return tuple(dict.fromkeys(text for one in values if (text := read(one)) is not None))
        except ValueError as error:
            unusable[str(error)] += 1
            return ()

    count = len(columns[file])
    labels: list[tuple[str, ...]] = [labels_of(value) for value in given] if label else [()] * count
    splits = [str(value or "") for value in columns[split]] if split else [""] * count
    rows = [Row(str(path or ""), of, where) for path, of, where in zip(columns[file], labels, splits)]
    notes = [f"{unusable.total():,} labels cannot be used, such as {next(iter(unusable))}"] if unusable else []
    return Table(rows, label, split, several, notes)


def _choose_column(name: str, asked: str | None, others: list[str]) -> str:
    """Returns the column of the labels, "" if there is none."""
    if asked is not None:
        if asked not in others:
            raise UserError(f"{name} has no column {asked!r}: {choose(asked, others)}")
        return asked
    usual = [column for known in LABEL_COLUMNS for column in others if column.lower() == known]
    if usual or len(others) <= 1:
        return (usual or others or [""])[0]
    raise UserError(
        f"{name}: labels may be in any of {some(others, 8)}: name the column behind the value of --data, as in "
        f"DATA#{others[0]}, or DATA# for none"
    )


def _parse_csv(data: bytes) -> dict[str, list[str]]:
    header = data.partition(b"\n")[0].decode("utf-8-sig", errors="replace").lower()
    fields = {mark: [field.strip(' "\r') for field in header.split(mark)] for mark in DELIMITERS}
    mark = next((mark for mark in DELIMITERS if set(fields[mark]) & set(FILE_COLUMNS)), ",")
    parse = csv.ParseOptions(delimiter=mark, newlines_in_values=True)
    names = csv.open_csv(io.BytesIO(data), parse_options=parse).schema.names
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"several columns are called {twice[0]}")
    convert = csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
    table = csv.read_csv(io.BytesIO(data), parse_options=parse, convert_options=convert)
    return {name.strip(): table[name].to_pylist() for name in names}


def _parse_json_lines(data: bytes) -> dict[str, list]:
    rows = []
    for number, line in enumerate(data.decode("utf-8-sig").splitlines(), start=1):
        if line.strip():
            rows.append(json.loads(line))
            if not isinstance(rows[-1], dict):
                raise ValueError(f"line {number} is no object")
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _parse_parquet(data: bytes) -> dict[str, list]:
    table = parquet.read_table(pa.BufferReader(data))
    columns = {name: table[name].to_pylist() for name in table.column_names}
    for name, classes in class_names(table.schema).items():
        columns[name] = [with_names(value, classes) for value in columns[name]]
    return columns


def _csv_label(text: str) -> str | None:
    return None if text.strip().lower() == "nan" else label_in_text(text.strip())


# By a table's extension, how it is parsed, and how one label is
_PARSERS: dict[str, tuple[Callable[[bytes], dict[str, list]], Callable[[Any], str | None]]] = {
    "csv": (_parse_csv, _csv_label),
    "jsonl": (_parse_json_lines, label_text),
    "parquet": (_parse_parquet, label_text),
}
