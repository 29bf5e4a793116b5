"""Tar files in webdataset's layout that others made: one, a pattern of several, or those that lie in a folder."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from glob import glob, has_magic
from itertools import product
from pathlib import Path

import numpy as np

from ssl_core.data.data_source import DataSource
from ssl_core.data.dataset import Packed, Shard, Source
from ssl_core.data.folder_layout import class_of, similar_classes_note
from ssl_core.data.image_folder import DEFAULT_SIZE, select_test_images, test_split_note, with_pixel_range
from ssl_core.data.listing import COMPRESSED, compressed_advice
from ssl_core.data.split_names import Role, split_roles
from ssl_core.data.tar_shards import NO_LABEL, Scan, lines_digest, scan_shards_cached
from ssl_core.errors import UserError, some
from ssl_core.storage.object_store import is_url

BRACES = re.compile(r"\{([^{}]*)\}")


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
        if is_url(data) or not data.lower().endswith((".tar", *COMPRESSED)):
            return False
        return Path(data).expanduser().is_file() or has_magic(data) or BRACES.search(data) is not None

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
        place = Path(data).expanduser()
        patterns = [] if place.is_file() else expand_braces(str(place))  # a name with brackets in it is no pattern
        paths = [Path(found) for pattern in patterns for found in _glob_pattern(pattern)] or [place] * place.is_file()
        if missing := [path for path in paths if not path.is_file()]:
            raise UserError(f"--data {data}: there is no {some(map(str, missing))}")
        if not paths:
            raise UserError(f"--data {data}: no file fits this pattern")
        paths = sorted({path.resolve() for path in paths})
        root = paths[0].parent if len({path.parent for path in paths}) == 1 else _common_folder(paths)
        return source_of_shards(data, root, [str(path.relative_to(root)) for path in paths], size, ())


def expand_braces(pattern: str) -> list[str]:
    """Returns the names that a pattern with braces stands for, such as `a-{000..002}.tar` or `{train,val}.tar`."""
    pieces = BRACES.split(pattern)
    choices = [[piece] if i % 2 == 0 else _brace_choices(piece) for i, piece in enumerate(pieces)]
    return ["".join(words) for words in product(*choices)]


def _brace_choices(inside: str) -> list[str]:
    if found := re.fullmatch(r"(\d+)\.\.(\d+)", inside):
        first, last = found.groups()
        width = len(first) if first.startswith("0") or len(first) == len(last) else 0
        return [str(i).zfill(width) for i in range(int(first), int(last) + 1)]
    return inside.split(",")


def _glob_pattern(pattern: str) -> list[str]:
    return sorted(glob(pattern)) if has_magic(pattern) else [pattern]


def _common_folder(paths: Sequence[Path]) -> Path:
    return next(parent for parent in paths[0].parents if all(path.is_relative_to(parent) for path in paths))


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
    train, test, unlabeled = _splits(data, names, found, notes)
    if not train.any():
        raise UserError(f"--data {data}: no images in the shards to train on; {'; '.join(notes)}")
    _check_folders(data, found, notes)
    labels, classes = _number_classes(found, train, notes)
    if classes and not test.any():
        keys = [
            f"{names[place[0]]}/{_decode_name(name)}" for place, name in zip(found.offsets[train], found.names[train])
        ]
        out = np.zeros(len(train), bool)
        out[train] = select_test_images(keys, labels[train])
        notes.append(test_split_note(int(out.sum()), int(train.sum()), "keys"))
        train, test = train & ~out, out
    elif classes and (unknown := np.unique(found.labels[test & (labels == NO_LABEL)])).size:
        without = [found.values[i] if i >= 0 else "none" for i in unknown]
        raise UserError(f"--data {data}: test shards have classes that the training shards lack: {some(without)}")
    labels[unlabeled] = NO_LABEL
    training, testing = (
        Tars(part, files, found.offsets[rows], labels[rows], names=found.names)
        for part, rows in (("train", train | unlabeled), ("test", test))
    )
    training, testing = with_pixel_range(data, training, testing, notes)
    content = [f"tar {name}\0{(root / name).stat().st_size}" for name in names]
    if unlabeled.any():
        content.append("unlabeled images are trained on")
    return Source(
        root.name, lines_digest(content), size or DEFAULT_SIZE, training, testing, classes, notes=(*notes, *left_out)
    )


def _splits(
    data: str, names: Sequence[str], found: Scan, notes: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the images to train on, those to test with, and those that are trained on as well, without labels: [n]
    bool each; without test images if no name says which they are."""
    roles = _shard_roles(names)
    of_shard = np.array([roles.get(name, "other") for name in names])
    kinds = dict.fromkeys(roles.values())
    if not kinds:
        no_image = np.zeros(len(found.offsets), bool)
        return ~no_image, no_image, no_image
    train = "train" if "train" in kinds else "other"
    if train not in of_shard:
        if "unlabeled" not in kinds:
            raise UserError(
                f"--data {data}: no shards to train on: found {some(names)}; name those to train on by a pattern"
            )
        train = "unlabeled"
    of_image = of_shard[found.offsets[:, 0]]
    labeled = [role for role in (train, "test", "val") if _all_labeled(found.labels[of_image == role])]
    # competitions ship test images without labels
    test = next((role for role in labeled[1:]), None) if train in labeled else None
    counts = {role: f"{(of_shard == role).sum():,} {role} shards" for role in dict.fromkeys(of_shard)}
    notes.append(f"trained on {counts[train]}" + (f", tested on {counts[test]}" if test else "") + ", by their names")
    if train != "unlabeled" and "unlabeled" in counts:
        notes.append(f"trained on without labels: {counts['unlabeled']}")
    if unused := [count for role, count in counts.items() if role not in (train, test, "unlabeled")]:
        notes.append(f"not used: {', '.join(unused)}")
    return of_image == train, of_image == (test or ""), (of_image == "unlabeled") & (of_image != train)


def _all_labeled(labels: np.ndarray) -> bool:
    return len(labels) > 0 and bool((labels != NO_LABEL).all())


def _check_folders(data: str, found: Scan, notes: list[str]) -> None:
    """Raises UserError if folders within the tar files are splits; adds a note if they may be classes."""
    folders = {tuple(_decode_name(name).split("/")[:-1]) for name in np.unique(found.names)}
    advice = "folders within tar files are not read as splits or classes: extract the files, and give their folder"
    levels = [{folder[depth] for folder in folders if len(folder) > depth} for depth in range(3)]
    if splits := sorted(set().union(*({*split_roles(level)} for level in levels if len(level) > 1))):
        raise UserError(f"--data {data}: {advice}; found {some(f'{name}/' for name in splits)}")
    if (found.labels == NO_LABEL).all() and any(len(level) > 1 for level in levels):
        notes.append(advice)


def _shard_roles(names: Sequence[str]) -> dict[str, Role]:
    """Returns the role of each tar file whose own name, or folder's name, is that of a split."""
    found: dict[str, Role] = {}
    stems = split_roles({name.rpartition("/")[2][: -len(".tar")] for name in names})
    folders = split_roles({part for name in names for part in name.split("/")[:-1]})
    for name in names:
        *parents, base = name.split("/")
        of_folders: list[Role] = [folders[part] for part in reversed(parents) if part in folders]
        if role := of_folders[0] if of_folders else stems.get(base[: -len(".tar")]):
            found[name] = role
    return found


def _number_classes(found: Scan, train: np.ndarray, notes: list[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns the images' classes, [n] int64, NO_LABEL for a label that no training image has, and the classes' names.

    They are ordered by number where all labels are numbers, else by name. There are none unless all training images
    have a label.
    """
    nothing = np.full(len(found.labels), NO_LABEL)
    trained = found.labels[train]
    if not found.values or (trained == NO_LABEL).all():
        return nothing, ()
    if missing := int((trained == NO_LABEL).sum()):
        notes.append(f"labels are not used, {missing:,} images have none")
        return nothing, ()
    numeric = all(value.isdecimal() for value in found.values)
    plain = [str(int(value)) if numeric else unicodedata.normalize("NFC", value) for value in found.values]
    names = sorted({plain[i] for i in np.unique(trained)}, key=int if numeric else None)
    if len(names) < 2:
        notes.append(f"labels are not used, all images have the same: {names[0]}")
        return nothing, ()
    notes += similar_classes_note(names)
    numbers = [class_of(name, tuple(names)) for name in plain]
    table = np.array([NO_LABEL if i is None else i for i in [*numbers, None]])  # the last for NO_LABEL itself
    return table[found.labels], tuple(names)


def _decode_name(name: bytes) -> str:
    return name.decode(errors="surrogateescape")
