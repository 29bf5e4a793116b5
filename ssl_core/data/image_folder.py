"""A dataset made of image files below a folder, here or in a store."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from ssl_core.data.dataset import Encoded, Source
from ssl_core.data.decoding.decode import UNREADABLE, read_image
from ssl_core.data.decoding.pixel_range import HEADERS, SAMPLE, range_mismatch_note, sampled_range
from ssl_core.data.folder_layout import Parts, find_layout
from ssl_core.errors import UserError
from ssl_core.storage.object_store import is_url

DEFAULT_SIZE = 96  # pixels that images are delivered at unless --size says otherwise
TEST_EVERY = 5  # one labeled image in so many becomes test data where there is no test part
Make = Callable[[list[str], np.ndarray], Encoded]


def from_folder_layout(
    data: str, name: str, sizes: Mapping[str, int], make: Make, size: int | None, left_out: Sequence[str] = ()
) -> Source:
    """The dataset of a folder. `sizes`: the bytes of its images, by their paths from there; make(paths, labels) gives a
    split of them; `left_out`: what else lies there and is not read.

    Raises UserError if there is nothing to train on, no image decodes, the test part has classes of its own, or the
    folders cannot be understood.
    """
    paths = sorted(tuple(path.split("/")) for path in sizes)
    if not paths:
        there = f": {'; '.join(left_out)}" if left_out else " (files that Pillow reads, at any depth)"
        raise UserError(f"--data {data}: no images in this folder{there}")
    try:
        layout = find_layout(paths)
    except UserError as error:
        raise UserError(f"--data {data}: {error}") from error
    train, test, notes = layout.train, layout.test, layout.notes
    if layout.classes and not test:
        names = ["/".join(path[len(layout.root) :]) for path in train]
        chosen = select_test_images(names, _labels_of(train, layout.labels))
        notes.append(test_split_note(int(chosen.sum()), len(train), "paths"))
        test = [path for path, out in zip(train, chosen) if out]
        train = [path for path, out in zip(train, chosen) if not out]
    splits = [make(["/".join(path) for path in part], _labels_of(part, layout.labels)) for part in (train, test)]
    splits = with_pixel_range(data, splits, notes)
    notes = (*notes, *left_out)
    return Source(name, _listing_digest(paths, sizes), size or DEFAULT_SIZE, *splits, layout.classes, notes=notes)


def with_pixel_range(data: str, splits: list, notes: list[str]) -> list:
    """The training and the test split, dataclasses with `levels`, after a look at the training images: with the range
    of their pixels, which `notes` then says. Raises UserError if none can be decoded, or StorageError."""
    check_one_reads(data, splits[0])
    headers = SAMPLE if is_url(data) else HEADERS  # each file is fetched for that
    levels, note = sampled_range(splits[0], headers)
    notes += filter(None, [note, range_mismatch_note(splits[1], levels, headers)])
    if levels is None:
        return splits
    return [replace(split, levels=levels) for split in splits]


def select_test_images(names: Sequence[str], labels: np.ndarray) -> np.ndarray:
    """[n] bool: one in TEST_EVERY of each class, those whose names hash lowest; of a class of two, one; of one,
    none."""
    draws = [hashlib.sha256(name.encode(errors="surrogateescape")).digest() for name in names]
    chosen = np.zeros(len(names), bool)
    for members in np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1]):
        if len(members) > 1:
            lowest = sorted(members.tolist(), key=draws.__getitem__)
            chosen[lowest[: -(-len(members) // TEST_EVERY)]] = True
    return chosen


def test_split_note(count: int, of: int, by: str) -> str:
    return f"{count:,} of {of:,} images are held out as test data, chosen by their {by}"


def check_one_reads(data: str, images: Encoded) -> None:
    """Without second attempts: one that reads is enough, and where none does nobody should wait long to hear it.

    Raises UserError with the first image's reason, or StorageError.
    """
    reason = ""
    for i in range(len(images)):
        try:
            read_image(partial(images.open, i), waits=())
            return
        except UNREADABLE as error:
            reason = reason or f"{images.name(i)}: {error or type(error).__name__}"
    raise UserError(f"--data {data}: none of its {len(images)} images to train on can be decoded, such as {reason}")


def _labels_of(images: Sequence[Parts], labels: Mapping[Parts, int]) -> np.ndarray:
    return np.array([labels.get(image, -1) for image in images], np.int64)


def _listing_digest(paths: Sequence[Parts], sizes: Mapping[str, int]) -> str:
    """Over paths and sizes, not contents: reading a large folder once more would cost as much as an epoch."""
    total = hashlib.sha256()
    for path in map("/".join, paths):
        total.update(f"{path}\0{sizes[path]}\n".encode(errors="surrogateescape"))
    return total.hexdigest()
