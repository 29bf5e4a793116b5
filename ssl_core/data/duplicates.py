"""Finds images of a dataset that are equal, byte for byte, and test images that are near copies of training images."""

import hashlib
import time
from collections import defaultdict
from collections.abc import Collection

import numpy as np

from ssl_core.data.dataset import Source
from ssl_core.data.near_duplicates import NearPairs, fingerprints, near_pairs
from ssl_core.data.split import Split, has_label
from ssl_core.storage.study_record import CopiesRecord

Image = tuple[str, int]  # the part of the dataset, "test" or "train", and the number in it
TIME_LIMIT_S = 20.0  # seconds that looking for copies may take
MAX_PAIRS = 2  # pairs that are named
MAX_DECODED = 20_000  # images of each part, beyond which files are not decoded to look for near copies
MAX_IN_MEMORY = 200_000  # and those that are decoded already are not compared


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


def find_copies(source: Source, seconds: float = TIME_LIMIT_S) -> CopiesRecord:
    """Looks for test images that are copies of training images, byte for byte, and for near copies.

    Only images whose size an image of the other part has are read, those of rare sizes first, which compares the most
    test images in the time. Near copies are looked for where there are no more images than MAX_DECODED or MAX_IN_MEMORY
    and the time that is left suffices. Nothing is fetched from a store.

    Args:
        source: The dataset.
        seconds: About how long it may take at most.

    Returns:
        What was found; the names in it are as the split has them, perhaps no valid text.
    """
    total = len(source.test)
    if source.train.remote:
        return CopiesRecord(
            digest=source.digest, test_images=total, compared=0, found=0, relabeled=0, pairs=(), remote=True
        )
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
        found |= trained_on(groups)
    relabeled = sum(has_other_label(source, i, trained) for i, trained in found.items())
    pairs = _named(source, {i: trained[0] for i, trained in found.items()})
    near = _find_near(source, found, deadline - time.monotonic())
    return CopiesRecord(
        digest=source.digest,
        test_images=total,
        compared=total - unknown,
        found=len(found),
        relabeled=relabeled,
        pairs=pairs,
        near_compared=near is not None,
        near_found=len(near.first) if near else 0,
        near_pairs=_named(source, near.first) if near else (),
    )


def trained_on(groups: list[list[Image]]) -> dict[int, list[int]]:
    """Returns the test images among groups of equal images that training images equal, and these."""
    found = {}
    for same in groups:
        trained = [i for part, i in same if part == "train"]
        found |= {i: trained for part, i in same if part == "test" and trained}
    return found


def has_other_label(source: Source, i: int, trained: list[int]) -> bool:
    """Returns whether any of some training images, if it has a label, has another than test image `i`."""
    train, label = source.train.labels, source.test.labels[i]
    return any(bool(np.any(train[j] != label)) for j in trained if has_label(train[j : j + 1])[0])


def _named(source: Source, found: dict[int, int]) -> tuple[tuple[str, str], ...]:
    return tuple((source.test.name(i), source.train.name(found[i])) for i in sorted(found)[:MAX_PAIRS])


def _find_near(source: Source, copies: Collection[int], seconds: float) -> NearPairs | None:
    """Returns the near copies among all test images but `copies`; None if it takes longer or there are too many."""
    start = time.monotonic()
    parts: tuple[Split, Split] = (source.test, source.train)
    if any(len(part) > (MAX_DECODED if part.pixels is None else MAX_IN_MEMORY) for part in parts):
        return None
    others = np.setdiff1d(np.arange(len(source.test)), list(copies))
    if not len(others):
        return NearPairs({}, 0)
    try:
        left = seconds * len(others) / (len(others) + len(source.train))
        test = fingerprints(source.test, others, seconds=left)
        train = fingerprints(source.train, np.arange(len(source.train)), seconds=start + seconds - time.monotonic())
        return near_pairs(test.prints, train.prints, start + seconds - time.monotonic())
    except TimeoutError:
        return None
