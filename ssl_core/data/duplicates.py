"""Finds images of a dataset that are equal, byte for byte."""

import hashlib
import time
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from ssl_core.data.dataset import Source

Image = tuple[str, int]  # the part of the dataset, "test" or "train", and the number in it
TIME_LIMIT_S = 20.0  # seconds that looking for copies may take
MAX_PAIRS = 2  # pairs that are named


def group_by_size(source: Source) -> list[list[Image]]:
    """Groups images by their size in bytes, since only those of equal size can be copies of each other.

    Args:
        source: The dataset.

    Returns:
        Each group of several images, test images first, then labeled ones; empty and missing files are left out.
    """
    found: dict[int, list[Image]] = defaultdict(list)
    for part in ("test", "train"):
        split = getattr(source, part)
        for i in np.argsort(~split.labeled, kind="stable").tolist():
            found[split.size(i)].append((part, i))
    return [images for size, images in found.items() if size and len(images) > 1]


def same_bytes(source: Source, images: list[Image], deadline: float | None = None) -> list[list[Image]]:
    """Finds which images have the same bytes; what cannot be read equals nothing.

    Args:
        source: The dataset.
        images: Those to compare.
        deadline: A time of time.monotonic() at which to give up; None: never.

    Returns:
        Each group of several equal images, in the order given.

    Raises:
        TimeoutError: If not all are read at the deadline.
    """
    found: dict[bytes, list[Image]] = defaultdict(list)
    for part, i in images:
        if deadline is not None and time.monotonic() > deadline:
            raise TimeoutError
        try:
            with getattr(source, part).open(i) as file:
                found[hashlib.sha256(file.read()).digest()].append((part, i))
        except (OSError, ValueError):  # packing or evaluating comes to it again, and names it
            continue
    return [same for same in found.values() if len(same) > 1]


@dataclass(frozen=True)
class Copies:
    """How many test images are in the training part, too: what they score may be memorized.

    Attributes:
        test_images: How many there are.
        compared: How many of them were compared; the others took too long, or are in a store.
        found: How many of the compared are copies of training images.
        relabeled: How many of the copies have another label there; unlabeled ones have none.
        pairs: Names of the first few copies, each with that of a training image of the same bytes.
        remote: Whether the dataset is in a store or in Parquet shards, of which nothing is fetched for this.
    """

    test_images: int
    compared: int
    found: int
    relabeled: int
    pairs: tuple[tuple[str, str], ...]
    remote: bool = False


def find_copies(source: Source, seconds: float = TIME_LIMIT_S) -> Copies:
    """Looks for test images that are copies of training images, byte for byte.

    Only images whose size an image of the other part has are read, those of rare sizes first, which compares the most
    test images in the time. Nothing is fetched from a store.

    Args:
        source: The dataset.
        seconds: About how long it may take at most.
    """
    total = len(source.test)
    if source.train.remote:
        return Copies(total, 0, 0, 0, (), remote=True)
    deadline, unknown, found = time.monotonic() + seconds, 0, {}
    for images in sorted(group_by_size(source), key=len):
        asked = sum(part == "test" for part, _ in images)
        if not 0 < asked < len(images):
            continue
        try:
            groups = same_bytes(source, images, deadline)
        except TimeoutError:
            unknown += asked
            continue
        for same in groups:
            trained = [i for part, i in same if part == "train"]
            found |= {i: trained for part, i in same if part == "test" and trained}
    train, test = source.train.labels, source.test.labels
    relabeled = sum(any(train[j] != test[i] for j in trained if train[j] >= 0) for i, trained in found.items())
    pairs = tuple((source.test.name(i), source.train.name(found[i][0])) for i in sorted(found)[:MAX_PAIRS])
    return Copies(total, total - unknown, len(found), relabeled, pairs)
