"""What a folder's layout says, here or in a store: which images are trained on, which test, and of which class."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import PurePosixPath

import numpy as np
from PIL import Image

from ssl_core.data.decode import UNREADABLE, read_image
from ssl_core.data.source import Encoded, Source
from ssl_core.errors import BadInput

SIZE = 96  # pixels that images are delivered at unless --size says otherwise
TEST_PARTS, TRAIN_PARTS = ("test", "val", "valid", "validation"), ("train",)
HELD_OUT = 5  # one labelled image in so many becomes test data where there is no test part
Make = Callable[[list[PurePosixPath], np.ndarray], Encoded]


def is_image(name: str) -> bool:
    """Whether Pillow reads files of this name, which may be a path; hidden ones are left alone."""
    path = PurePosixPath(name)
    return path.suffix.lower() in _suffixes() and path.name[0] != "."


@lru_cache(maxsize=1)
def _suffixes() -> set[str]:
    Image.init()
    return {suffix for suffix, format in Image.EXTENSION.items() if format in Image.OPEN}


def laid_out(
    data: str, name: str, sizes: Mapping[PurePosixPath, int], folders: Iterable[str], make: Make, size: int | None
) -> Source:
    """The dataset of a folder. `sizes`: its images, by their paths from there; `folders`: of its first level;
    make(paths, labels) gives a split of them.

    Labels come from class sub-folders; `train/` and `test/` (or val/) above them are taken as they are.
    Raises BadInput if there is nothing to train on, no image decodes, or the test part has classes of its own.
    """
    paths, root = sorted(sizes), PurePosixPath()
    if not paths:
        raise BadInput(f"--data {data}: no images in this folder (files that Pillow reads, at any depth)")
    parts = {folder.lower(): PurePosixPath(folder) for folder in folders}
    train_root = next((parts[name] for name in TRAIN_PARTS if name in parts), root)
    train = [path for path in paths if train_root in path.parents]
    if not train:
        raise BadInput(f"--data {data}: no images to train on in {train_root.name}/")
    classes = _classes(train, train_root)
    notes: tuple[str, ...] = ()
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
    elif classes:
        test_root = train_root
        chosen = held_out([str(p.relative_to(train_root)) for p in train], _labels(train, train_root, classes))
        test = [path for path, out in zip(train, chosen) if out]
        notes = (f"{name}: {len(test)} of {len(train)} images are held out as test data, chosen by their paths",)
        train = [path for path, out in zip(train, chosen) if not out]
    else:
        test, test_root = [], root
    files = make(train, _labels(train, train_root, classes))
    check_one_reads(data, files)
    tested = make(test, _labels(test, test_root, classes))
    return Source(name, _digest(sizes), size or SIZE, files, tested, classes, notes=notes)


def held_out(names: Sequence[str], labels: np.ndarray) -> np.ndarray:
    """[n] bool: one in HELD_OUT of each class, those whose names hash lowest; of a class of two, one; of one, none."""
    draws = [hashlib.sha256(name.encode(errors="surrogateescape")).digest() for name in names]
    chosen = np.zeros(len(names), bool)
    for members in np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1]):
        if len(members) > 1:
            lowest = sorted(members.tolist(), key=draws.__getitem__)
            chosen[lowest[: -(-len(members) // HELD_OUT)]] = True
    return chosen


def check_one_reads(data: str, images: Encoded) -> None:
    """Without second attempts: one that reads is enough, and where none does nobody should wait long to hear it.

    Raises BadInput, or StoreFailed.
    """
    for i in range(len(images)):
        try:
            read_image(partial(images.open, i), waits=())
            return
        except UNREADABLE:
            continue
    raise BadInput(f"--data {data}: none of its {len(images)} images to train on can be decoded")


def _classes(paths: list[PurePosixPath], root: PurePosixPath) -> tuple[str, ...]:
    """The names of the first-level sub-folders, if every image lies in one and there are at least two."""
    parts = [path.relative_to(root).parts for path in paths]
    names = sorted({p[0] for p in parts})
    return tuple(names) if len(names) > 1 and all(len(p) > 1 for p in parts) else ()


def _labels(paths: list[PurePosixPath], root: PurePosixPath, classes: tuple[str, ...]) -> np.ndarray:
    number = {name: i for i, name in enumerate(classes)}
    return np.array([number.get(p.relative_to(root).parts[0], -1) for p in paths], np.int64)


def _digest(sizes: Mapping[PurePosixPath, int]) -> str:
    """Over paths and sizes, not contents: reading a large folder once more would cost as much as an epoch."""
    total = hashlib.sha256()
    for path in sorted(sizes):
        total.update(f"{path}\0{sizes[path]}\n".encode(errors="surrogateescape"))
    return total.hexdigest()
