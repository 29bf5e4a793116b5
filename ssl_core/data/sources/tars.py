"""Tar files in webdataset's layout that others made: one, a pattern of several, or those that lie in a folder."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ssl_core.data.data_source import DataSource
from ssl_core.data.dataset import Packed, Shard, Source
from ssl_core.data.image_folder import DEFAULT_SIZE, with_pixel_range
from ssl_core.data.labeling import NO_LABEL, Labeled, arrange
from ssl_core.data.listing import COMPRESSED, compressed_advice
from ssl_core.data.path_patterns import files_of_pattern, is_file_or_pattern
from ssl_core.data.split_names import roles_of_paths, split_roles
from ssl_core.data.tar_shards import Scan, labels_digest, lines_digest, scan_shards_cached
from ssl_core.errors import UserError, some


@dataclass(frozen=True)
class Tars(Packed):
    """A split of images in tar files that others made, which have names of their own.

    Attributes:
        names: [m] bytes: the key of image i is names[offsets[i, 3]].
    """

    names: np.ndarray = field(default_factory=lambda: np.empty(0, "S1"))

    def name(self, i: int) -> str:
        """Returns what messages call image `i`: its shard and its key there."""
        shard, _, _, number = self.offsets[i].tolist()
        return f"{self.shards[shard].name}: {_decode_name(self.names.item(number))}"


class TarFiles(DataSource):
    """Opens tar files by a path or a pattern."""

    def opens(self, data: str) -> bool:
        """Returns whether a value of --data is a tar file, compressed or not, or a pattern of several.

        Folders of tar files are opened by ssl_core/data/sources/folder.py.
        """
        return is_file_or_pattern(data, (".tar", *COMPRESSED))

    def load(self, data: str, size: int | None) -> Source:
        """Opens tar files as a dataset.

        Args:
            data: A path, or a pattern with * ? [] or with {000..002} or {a,b}.
            size: The side in pixels that images are delivered at; None: DEFAULT_SIZE.

        Raises:
            UserError: If there is no such file, it is compressed, or there is nothing to train on.
        """
        if data.lower().endswith(COMPRESSED):
            raise UserError(f"--data {data}: {compressed_advice(Path(data).name)}")
        root, names = files_of_pattern(data)
        return source_of_shards(data, root, names, size, ())


def open_shards(root: Path, names: Sequence[str]) -> tuple[Shard, ...]:
    """Returns the tar files `names` below `root`, stamped by their present sizes and times of change."""
    states = [(root / name).stat() for name in names]
    return tuple(Shard(root / name, f"{state.st_size} {state.st_mtime_ns}") for name, state in zip(names, states))


def source_of_shards(data: str, root: Path, names: Sequence[str], size: int | None, left_out: Sequence[str]) -> Source:
    """Makes the dataset in some tar files; the names of files and their folders say which splits they are.

    Args:
        data: The value of --data, for messages.
        root: A folder above all of them.
        names: The tar files, from `root` on.
        size: The side in pixels that images are delivered at; None: DEFAULT_SIZE.
        left_out: Notes about what else is there and is not read.

    Raises:
        UserError: If no image is in them, no training image can be decoded, there is nothing to train on, or the test
            images have classes of their own.
    """
    names = sorted(names)
    files = open_shards(root, names)
    found = scan_shards_cached(files)
    notes = list(found.notes)
    if not len(found.offsets):
        raise UserError(f"--data {data}: no images in its tar files; {'; '.join(notes)}".rstrip("; "))
    roles = roles_of_paths(names, (".tar",))
    of_shard = np.array([roles.get(name, "other") for name in names])
    counts = {role: f"{(of_shard == role).sum():,} {role} shards" for role in dict.fromkeys(of_shard)}
    labeled = Labeled(of_shard[found.offsets[:, 0]], found.labels, found.values, counts, "shards", "their names")

    def keys(rows: np.ndarray) -> list[str]:
        return [f"{names[found.offsets[row, 0]]}/{_decode_name(found.names.item(row))}" for row in rows]

    split = arrange(data, labeled, keys, notes)
    _check_folders(data, found, notes)
    training, testing = (
        Tars(part, files, found.offsets[rows], split.labels[rows], names=found.names)
        for part, rows in (("train", split.train), ("test", split.test))
    )
    training, testing = with_pixel_range(data, training, testing, notes)
    content = [f"tar {name}\0{(root / name).stat().st_size}" for name in names]
    if split.unlabeled:
        content.append("unlabeled images are trained on")
    if split.classes:
        content.append(f"labels {labels_digest(split.labels)} of {split.classes}")
    digest = lines_digest(content)
    return Source(root.name, digest, size or DEFAULT_SIZE, training, testing, split.classes, notes=(*notes, *left_out))


def _check_folders(data: str, found: Scan, notes: list[str]) -> None:
    """Raises UserError if folders within the tar files are splits; adds a note if they may be classes."""
    folders = {tuple(_decode_name(name).split("/")[:-1]) for name in np.unique(found.names)}
    advice = "folders within tar files are not read as splits or classes: extract the files, and give their folder"
    levels = [{folder[depth] for folder in folders if len(folder) > depth} for depth in range(3)]
    if splits := sorted(set().union(*({*split_roles(level)} for level in levels if len(level) > 1))):
        raise UserError(f"--data {data}: {advice}; found {some(f'{name}/' for name in splits)}")
    if (found.labels == NO_LABEL).all() and any(len(level) > 1 for level in levels):
        notes.append(advice)


def _decode_name(name: bytes) -> str:
    return name.decode(errors="surrogateescape")
