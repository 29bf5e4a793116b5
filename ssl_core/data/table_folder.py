"""Makes a dataset of image files whose labels are in tables or masks beside them, or in their folders' names."""

import hashlib
import posixpath
import unicodedata
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ssl_core.data.dataset import Source
from ssl_core.data.image_folder import DEFAULT_SIZE, Make, from_folder_layout, listing_digest, with_pixel_range
from ssl_core.data.label_table import FILE_COLUMNS, Row, Table, name_with_column, parse_table
from ssl_core.data.labeling import NO_LABEL, Labeled, arrange
from ssl_core.data.mask_folder import from_masks
from ssl_core.data.split_names import roles_of_paths, split_roles
from ssl_core.errors import UserError, some


class _Known(NamedTuple):
    """What the tables say of an image."""

    labels: tuple[str, ...]
    split: str


def from_images(
    data: str,
    name: str,
    sizes: Mapping[str, int],
    tables: Mapping[str, bytes],
    column: str | None,
    make: Make,
    size: int | None,
    left_out: Sequence[str],
    needed: bool,
    lists: Mapping[str, bytes] | None = None,
) -> Source:
    """Makes the dataset of image files: by tables beside them, if there are any, else by masks, else by folders' names.

    Args:
        data: The value of --data, for messages.
        name: What the folder is called.
        sizes: Bytes of each image, by its path from the folder, with slashes.
        tables: The bytes of each table, by its path from the folder; its rows are about files below its own folder.
        column: The column of the labels; "": no table is read; None: see `parse_table`.
        make: Makes a split of paths and of labels.
        size: The side in pixels that images are delivered at; None: DEFAULT_SIZE.
        left_out: Notes about what else is there and is not read.
        needed: Whether a table has to be there that names files.
        lists: The content of lists of names that may lie beside masks, by path.

    Raises:
        UserError: If there is nothing to train on, a table is damaged, or it is not clear what tables or folders are.
        StorageError: If a store fails.
    """
    parsed: dict[str, Table] = {}
    unread: list[str] = []
    for place, content in sorted(tables.items()):
        try:
            table = None if column == "" else parse_table(place, content, column)
        except UserError as error:
            raise UserError(f"--data {data}: {error}") from error
        if table is None:
            why = "no table is asked for" if column == "" else f"it has no column {FILE_COLUMNS[0]}"
            unread.append(f"{place} is not read: {why}")
        elif (folder := posixpath.dirname(place)) in map(posixpath.dirname, parsed):
            raise UserError(f"--data {data}: several tables lie in {folder or 'the folder'}: remove all but one")
        else:
            parsed[place] = table
    left_out = [*left_out, *unread]
    if parsed and sizes:
        return _from_tables(data, name_with_column(name, column), sizes, tables, parsed, make, size, left_out)
    if needed and not parsed:
        raise UserError(f"--data {data}: {'; '.join(unread) or 'there is no table of labels'}")
    if found := from_masks(data, name, sizes, lists or {}, make, size, left_out):
        return found
    left_out = [*left_out, *([f"not used: {some(sorted(lists))}"] if lists else [])]
    return from_folder_layout(data, name, sizes, make, size, left_out)


def _from_tables(
    data: str,
    name: str,
    sizes: Mapping[str, int],
    tables: Mapping[str, bytes],
    parsed: Mapping[str, Table],
    make: Make,
    size: int | None,
    left_out: Sequence[str],
) -> Source:
    """Makes the dataset of image files and tables, as `from_images` does.

    Splits are those of the tables or, where these say nothing, of the folders' names.
    """
    notes = [_columns_note(place, table) for place, table in parsed.items()]
    known = _match(data, sizes, parsed, notes)
    paths = ["/".join(parts) for parts in sorted(tuple(path.split("/")) for path in sizes)]
    found = _labeled(paths, known, parsed, notes)
    split = arrange(data, found, lambda rows: [paths[row] for row in rows], notes)
    train, test = (
        make([paths[row] for row in np.flatnonzero(rows)], split.labels[rows]) for rows in (split.train, split.test)
    )
    train, test = with_pixel_range(data, train, test, notes)
    total = hashlib.sha256(listing_digest(paths, sizes).encode())
    for place, table in parsed.items():
        total.update(f"{place}\0{table.label_column}\0".encode() + hashlib.sha256(tables[place]).digest())
    digest = total.hexdigest()
    return Source(name, digest, size or DEFAULT_SIZE, train, test, split.classes, notes=(*notes, *left_out))


def _columns_note(place: str, table: Table) -> str:
    of = f"column {table.label_column} of {place}"
    splits = f", splits from {table.split_column}" if table.split_column else ""
    return f"labels from {of}{splits}" if table.label_column else f"no labels in {place}{splits}"


def _match(data: str, sizes: Mapping[str, int], tables: Mapping[str, Table], notes: list[str]) -> dict[str, _Known]:
    """Returns what the tables say of each image that is there, by its path; adds notes about all other rows.

    Raises:
        UserError: If a row leads out of the table's folder, or no file that is named is there.
    """
    composed = {unicodedata.normalize("NFC", path): path for path in sizes}  # macOS decomposes names
    known: dict[str, _Known] = {}
    missing: list[str] = []
    again = otherwise = 0
    for place, table in tables.items():
        for number, row in enumerate(table.rows, start=1):
            inside = _inside(row)
            if inside is None:
                raise UserError(
                    f"--data {data}: row {number} of {place} names {row.file[:200]!r}, expected a path below its folder"
                )
            path = composed.get(unicodedata.normalize("NFC", posixpath.join(posixpath.dirname(place), inside)))
            if path is None:
                missing.append(row.file)
            elif path in known:
                again += 1
                otherwise += known[path] != (row.labels, row.split)
            else:
                known[path] = _Known(row.labels, row.split)
    if not known:
        what = f"such as {missing[0][:200]!r}" if missing else "for it names none"
        raise UserError(f"--data {data}: no image that {some(tables)} names is there, {what}")
    if missing:
        notes.append(f"{len(missing):,} rows name files that are not there: {some(name[:200] for name in missing)}")
    if again:
        which = f", {otherwise:,} of them with another label or split: the first row counts" if otherwise else ""
        notes.append(f"{again:,} rows are repeated{which}")
    if without := len(sizes) - len(known):
        notes.append(f"{without:,} images have no row")
    return known


def _inside(row: Row) -> str | None:
    """Returns the path that a row names, with slashes; None if it may lead out of the table's folder."""
    path = row.file.strip().replace("\\", "/")
    parts = path.split("/")
    if not path or path.startswith("/") or ".." in parts or ":" in parts[0]:
        return None if path else ""
    return posixpath.normpath(path)


def _labeled(paths: Sequence[str], known: dict[str, _Known], tables: Mapping[str, Table], notes: list[str]) -> Labeled:
    """Returns what is known of the images at `paths`; adds notes about labels that are not used."""
    labels = [known[path].labels if path in known else () for path in paths]
    values = sorted({text for of in labels for text in of})
    number = {value: i for i, value in enumerate(values)}
    notes += [note for table in tables.values() for note in table.notes]
    labeled = sum(map(bool, labels))
    if labeled and (empty := len(known) - labeled):
        notes.append(f"{empty:,} rows have no label")
    if any(table.several for table in tables.values()):
        numbers = np.zeros((len(paths), len(values)), bool)
        for row, of in enumerate(labels):
            numbers[row, [number[text] for text in of]] = True
    else:
        numbers = np.array([number[of[0]] if of else NO_LABEL for of in labels], np.int64)
        if labeled > 1 and len(values) == labeled:
            notes.append("labels are not used, each image has one of its own, as captions are")
            numbers[:] = NO_LABEL
    by_table = any(table.split_column for table in tables.values())
    folders = roles_of_paths(paths)
    named = split_roles({row.split for row in known.values()} - {""})
    given = [named.get(known[path].split) if by_table and path in known else folders.get(path) for path in paths]
    roles = np.array([role or "other" for role in given])
    counts = {str(role): f"{(roles == role).sum():,} {role} images" for role in np.unique(roles)}
    by = "the tables" if by_table else "their folders' names"
    return Labeled(roles, numbers, tuple(values), counts, "images", by)
