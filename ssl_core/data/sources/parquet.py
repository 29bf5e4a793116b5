"""Parquet shards of images, as the Hugging Face Hub has them: one, a pattern of several, in a folder or at a URL."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssl_core.data.data_source import DataSource
from ssl_core.data.dataset import Packed, Source
from ssl_core.data.image_folder import DEFAULT_SIZE, with_pixel_range
from ssl_core.data.label_table import name_with_column, split_column
from ssl_core.data.labeling import Labeled, arrange
from ssl_core.data.listing import saying_if_slow
from ssl_core.data.parquet_scan import ParquetScan, scan_cached
from ssl_core.data.parquet_shards import ParquetShard, local_object
from ssl_core.data.path_patterns import files_of_pattern, is_file_or_pattern
from ssl_core.data.sampler import WINDOW
from ssl_core.data.sources.table import load_table
from ssl_core.data.split import NamedBytes
from ssl_core.data.split_names import roles_of_paths, split_roles
from ssl_core.data.tar_shards import labels_digest, lines_digest
from ssl_core.errors import UserError, some
from ssl_core.storage.object_cache import LIMIT_VARIABLE, cache_limit
from ssl_core.storage.object_store import Object

END = ".parquet"


@dataclass(frozen=True)
class ParquetImages(Packed):
    """A split of images in Parquet shards, each written out into the cache before it is read.

    `offsets` are [n, 4]: shard, row in it, 0, number in the dataset.
    """

    shards: tuple[ParquetShard, ...]

    def open(self, i: int) -> NamedBytes:
        """Reads the bytes of image `i`, as a file; raises what `ParquetShard.read_row` raises."""
        shard, row, _, _ = self.offsets[i].tolist()
        return NamedBytes(self.shards[shard].read_row(row), self.name(i))

    def size(self, i: int) -> int:
        """Returns the bytes of image `i`; 0 if it has none."""
        shard, row, _, _ = self.offsets[i].tolist()
        return self.shards[shard].row_bytes(row)

    def name(self, i: int) -> str:
        """Returns what messages call image `i`: its shard and its row there."""
        shard, row, _, _ = self.offsets[i].tolist()
        return f"{self.shards[shard].name}: row {row}"


class ParquetFiles(DataSource):
    """Opens Parquet files by a path or a pattern."""

    def opens(self, data: str) -> bool:
        """Returns whether a value of --data is a Parquet file or a pattern of several, perhaps with a column of labels.

        Folders of Parquet files are opened by ssl_core/data/sources/folder.py.
        """
        return is_file_or_pattern(split_column(data)[0], (END,))

    def load(self, data: str, size: int | None) -> Source:
        """Opens Parquet files as a dataset.

        Args:
            data: A path, or a pattern with * ? [] or with {000..002} or {a,b}; and behind a # the column of the labels.
                A file without images may be a table of image files beside it.
            size: The side in pixels that images are delivered at; None: DEFAULT_SIZE.

        Raises:
            UserError: If there is no such file, or there is nothing to train on.
        """
        place, column = split_column(data)
        root, names = files_of_pattern(place)
        files = [local_object(root / name) for name in names]
        if source := source_of_parquet(data, root.name, names, files, column, size, ()):
            return source
        if len(names) == 1:
            return load_table(data, root / names[0], column, size)
        raise UserError(f"--data {data}: no images in its Parquet files")


def source_of_parquet(
    data: str,
    name: str,
    names: Sequence[str],
    files: Sequence[Object],
    column: str | None,
    size: int | None,
    left_out: Sequence[str],
    at_least: int = 1,
) -> Source | None:
    """Makes the dataset in some Parquet files; the names of files and their folders say which splits they are.

    Args:
        data: The value of --data, for messages.
        name: What the folder is called.
        names: Paths of the files from the dataset's folder on.
        files: The files themselves, in the same order; URLs may be paths.
        column: The column of the labels; see `scan_cached`.
        size: The side in pixels that images are delivered at; None: DEFAULT_SIZE.
        left_out: Notes about what else is there and is not read.
        at_least: How many images there have to be.

    Returns:
        The dataset; None if there are fewer images in the files.

    Raises:
        UserError: If no training image can be decoded, there is nothing to train on, the test images have classes of
            their own, the labels are ambiguous, or the cache is too small.
        StorageError: If a store fails.
    """
    order = sorted(range(len(names)), key=names.__getitem__)
    names, files = [names[i] for i in order], [files[i] for i in order]
    try:
        with saying_if_slow(lambda: f"reading what is in {len(files):,} Parquet files of {data}"):
            found = scan_cached(files, column)
    except UserError as error:
        raise UserError(f"--data {data}: {error}") from error
    if len(found.labels) < at_least:
        if found.notes and not len(found.labels) and any("damaged" in note for note in found.notes):
            raise UserError(f"--data {data}: no images in its Parquet files; {'; '.join(found.notes)}")
        return None
    names = [names[i] for i in found.used]
    notes: list[str] = []
    _check_one_dataset(data, names)
    counts = [shard.rows for shard in found.shards]
    number, row = np.repeat(np.arange(len(names)), counts), np.concatenate([np.arange(count) for count in counts])
    offsets = np.stack([number, row, np.zeros_like(row), np.arange(len(row))], 1)
    split = arrange(
        data, _labeled(names, number, found), lambda rows: [f"{names[number[i]]}/{row[i]}" for i in rows], notes
    )
    notes += found.notes
    training, testing = (
        _split(part, found.shards, offsets[rows], split.labels[rows])
        for part, rows in (("train", split.train), ("test", split.test))
    )
    needed = sum(sorted((shard.size for shard in found.shards), reverse=True)[: WINDOW + 1])
    if needed > cache_limit():
        raise UserError(f"--data {data} needs {LIMIT_VARIABLE} of {needed / 1e9:.3g} at least, better twice as much")
    with saying_if_slow(lambda: f"reading the first images of {data}"):
        training, testing = with_pixel_range(data, training, testing, notes)
    lines = [f"parquet {names[i]}\0{shard.obj.size}\0{shard.column}" for i, shard in enumerate(found.shards)]
    labels = f"labels {labels_digest(split.labels)} of {split.classes}"
    digest, name = lines_digest([*lines, labels, f"windows of {WINDOW}"]), name_with_column(name, column)
    return Source(name, digest, size or DEFAULT_SIZE, training, testing, split.classes, notes=(*notes, *left_out))


def _labeled(names: Sequence[str], number: np.ndarray, found: ParquetScan) -> Labeled:
    roles = roles_of_paths(names, (END,))
    of_shard = np.array([roles.get(name, "other") for name in names])
    counts = {str(role): f"{(of_shard == role).sum():,} {role} shards" for role in dict.fromkeys(of_shard)}
    return Labeled(of_shard[number], found.labels, found.values, counts, "shards", "their names")


def _split(part: str, shards: Sequence[ParquetShard], offsets: np.ndarray, labels: np.ndarray) -> ParquetImages:
    """Makes a split whose shards are only those that have images of it."""
    used, numbers = np.unique(offsets[:, 0], return_inverse=True)
    offsets = np.concatenate([numbers[:, None], offsets[:, 1:]], 1)
    return ParquetImages(part, tuple(shards[i] for i in used), offsets, labels, windowed=True)


def _check_one_dataset(data: str, names: Sequence[str]) -> None:
    """Raises UserError if several folders have splits of their own: they are other datasets, or other sizes of one."""
    folders: dict[str, None] = {}
    for name in roles_of_paths(names, (END,)):
        parents = Path(name).parts[:-1]
        roles = split_roles(parents)
        folders["/".join(part for part in parents if part not in roles)] = None
    if len(folders) > 1:
        found = some([f"{folder}/" for folder in folders])
        raise UserError(f"--data {data}: several folders have splits of their own: {found}; give one of them")
