"""Any folder of images: class sub-folders or flat and unlabelled, nested, every format that Pillow reads."""

import hashlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ssl_core.data.decode import UNREADABLE, read_image
from ssl_core.data.source import Encoded, Files, Source
from ssl_core.errors import BadInput

FALLBACK = True  # a folder may be something more particular, such as a packed dataset
SIZE = 96  # pixels that images are delivered at unless --size says otherwise
TEST_PARTS, TRAIN_PARTS = ("test", "val", "valid", "validation"), ("train",)
HELD_OUT = 5  # one labelled image in so many becomes test data where the folder has no test part


def opens(data: str) -> bool:
    return Path(data).expanduser().is_dir()


def load(data: str, size: int | None) -> Source:
    """Labels come from class sub-folders; `train/` and `test/` (or val/) above them are taken as they are."""
    root = Path(data).expanduser().resolve()
    unlisted: list[OSError] = []
    paths = images_below(root, unlisted.append)
    if not paths:
        raise BadInput(f"--data {data}: no images in this folder (files that Pillow reads, at any depth)")
    parts = {child.name.lower(): child for child in root.iterdir() if child.is_dir()}
    train_root = next((parts[name] for name in TRAIN_PARTS if name in parts), root)
    train = [p for p in paths if train_root in p.parents]
    if not train:
        raise BadInput(f"--data {data}: no images to train on in {train_root.name}/")
    classes = _classes(train, train_root)
    notes = tuple(f"{root.name}: a folder is left out, {error}" for error in unlisted)
    # the first test part that is laid out in classes: competitions ship a flat, unlabelled one
    tests = [parts[name] for name in TEST_PARTS if name in parts and train_root != root]
    labelled = {part: [p for p in paths if part in p.parents and len(p.relative_to(part).parts) > 1] for part in tests}
    test_root = next((part for part in tests if classes and labelled[part]), None)
    if test_root:
        test = labelled[test_root]
        unknown = sorted({p.relative_to(test_root).parts[0] for p in test} - set(classes))
        if unknown:
            raise BadInput(
                f"--data {data}: {test_root.name}/ has {len(unknown)} classes that {train_root.name}/ lacks, "
                f"such as {', '.join(unknown[:5])}"
            )
    else:
        test_root, chosen = train_root, _held_out(train, train_root) if classes else set()
        test = [p for p in train if p in chosen]
        if classes:
            notes += (
                f"{root.name}: {len(test)} of {len(train)} images are held out as test data, chosen by their paths",
            )
            train = [p for p in train if p not in chosen]
    files = Files(train, _labels(train, train_root, classes))
    check_one_reads(data, files)
    held_out = Files(test, _labels(test, test_root, classes))
    return Source(root.name, _digest(paths, root), size or SIZE, files, held_out, classes, notes=notes)


def images_below(root: Path, unlisted: Callable[[OSError], object] | None = None) -> list[Path]:
    """Files with an image's extension, at any depth, sorted by path; a loop of links is walked once. Links that lead
    nowhere are among them, to be missed by name. `unlisted` hears of folders that cannot be listed."""
    Image.init()
    suffixes = {suffix for suffix, format in Image.EXTENSION.items() if format in Image.OPEN}
    seen, found = set(), []
    for folder, children, names in os.walk(root, onerror=unlisted, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            children.clear()
            continue
        seen.add(real)
        children.sort()  # of two ways to a folder the first is taken, whatever the order on the disk
        found += [Path(folder) / n for n in names if Path(n).suffix.lower() in suffixes and n[0] != "."]
    return sorted(found)


def check_one_reads(data: str, images: Encoded) -> None:
    """Without second attempts: one that reads is enough, and where none does nobody should wait long to hear it."""
    for i in range(len(images)):
        try:
            read_image(partial(images.open, i), waits=())
            return
        except UNREADABLE:
            continue
    raise BadInput(f"--data {data}: none of its {len(images)} images to train on can be decoded")


def _classes(paths: list[Path], root: Path) -> tuple[str, ...]:
    """The names of the first-level sub-folders, if every image lies in one and there are at least two."""
    parts = [path.relative_to(root).parts for path in paths]
    names = sorted({p[0] for p in parts})
    return tuple(names) if len(names) > 1 and all(len(p) > 1 for p in parts) else ()


def _labels(paths: list[Path], root: Path, classes: tuple[str, ...]) -> np.ndarray:
    number = {name: i for i, name in enumerate(classes)}
    return np.array([number.get(p.relative_to(root).parts[0], -1) for p in paths], np.int64)


def _held_out(paths: list[Path], root: Path) -> set[Path]:
    """One in HELD_OUT of each class, those whose names hash lowest; of a class of two, one; of one, none."""
    classes: dict[str, list[Path]] = {}
    for path in paths:
        classes.setdefault(path.relative_to(root).parts[0], []).append(path)

    def draw(path: Path) -> bytes:
        return hashlib.sha256(str(path.relative_to(root)).encode(errors="surrogateescape")).digest()

    lowest = [sorted(found, key=draw)[: -(-len(found) // HELD_OUT)] for found in classes.values() if len(found) > 1]
    return {path for found in lowest for path in found}


def _digest(paths: list[Path], root: Path) -> str:
    """Over paths and sizes, not contents: reading a large folder once more would cost as much as an epoch."""
    total = hashlib.sha256()
    for path in paths:
        total.update(f"{path.relative_to(root)}\0{_size(path)}\n".encode(errors="surrogateescape"))
    return total.hexdigest()


def _size(path: Path) -> int:
    """In bytes; -1 for a link that leads nowhere or a file that is gone since it was listed."""
    try:
        return path.stat().st_size
    except OSError:
        return -1
