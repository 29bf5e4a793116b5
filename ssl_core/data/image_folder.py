"""Makes a dataset of the image files below a folder, on a disk or in a store."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np

from ssl_core.data.dataset import Files, Packed, Source
from ssl_core.data.decoding.decode import UNREADABLE, read_image
from ssl_core.data.decoding.pixel_range import HEADERS, SAMPLE, range_mismatch_note, sampled_range
from ssl_core.data.folder_layout import Parts, find_layout
from ssl_core.data.remote import RemoteFiles
from ssl_core.data.split import Split
from ssl_core.errors import UserError
from ssl_core.storage.object_store import is_url

DEFAULT_SIZE = 96  # pixels that images are delivered at unless --size says otherwise
TEST_EVERY = 5  # one labeled image in so many becomes test data where there is no test part
Make = Callable[[list[str], np.ndarray], Files | RemoteFiles]
T = TypeVar("T", bound=Files | RemoteFiles | Packed)  # splits with levels that can be replaced


def from_folder_layout(
    data: str, name: str, sizes: Mapping[str, int], make: Make, size: int | None, left_out: Sequence[str] = ()
) -> Source:
    """Makes the dataset of a folder, whose sub-folders say what are splits and classes.

    Args:
        data: The value of --data, for messages.
        name: What the dataset is called.
        sizes: Bytes of each image, by its path from the folder, with slashes.
        make: Makes a split of paths and of labels, [n] int64.
        size: The side in pixels that images are delivered at; None: DEFAULT_SIZE.
        left_out: Notes about what else is there and is not read.

    Raises:
        UserError: If there is nothing to train on, no training image can be decoded, the test part has classes of its
            own, or the folders cannot be understood.
        StorageError: If a store fails.
    """
    paths = sorted(tuple(path.split("/")) for path in sizes)
    if not paths:
        there = f": {'; '.join(left_out)}" if left_out else " (files that Pillow reads, at any depth)"
        raise UserError(f"--data {data}: no images in this folder{there}")
    try:
        layout = find_layout(paths)
    except UserError as error:
        raise UserError(f"--data {data}: {error}") from error
    train_images, test_images, notes = list(layout.train), layout.test, layout.notes
    if layout.classes and not test_images:
        names = ["/".join(path[len(layout.root) :]) for path in train_images]
        chosen = select_test_images(names, _labels_of(train_images, layout.labels))
        notes.append(test_split_note(int(chosen.sum()), len(train_images), "paths"))
        test_images = [path for path, out in zip(train_images, chosen) if out]
        train_images = [path for path, out in zip(train_images, chosen) if not out]
    train_images += layout.unlabeled
    train, test = (
        make(["/".join(path) for path in images], _labels_of(images, layout.labels))
        for images in (train_images, test_images)
    )
    train, test = with_pixel_range(data, train, test, notes)
    names = map("/".join, paths)
    digest = listing_digest(names, sizes, "unlabeled images are trained on\n" if layout.unlabeled else "")
    return Source(name, digest, size or DEFAULT_SIZE, train, test, layout.classes, notes=(*notes, *left_out))


def with_pixel_range(data: str, train: T, test: T, notes: list[str]) -> tuple[T, T]:
    """Sets the range of pixel values of a dataset, from a sample of its training images.

    Args:
        data: The value of --data, for messages.
        train: The training split.
        test: The test split.
        notes: Gets what the user should know about the range.

    Returns:
        The splits, with `levels` if images of more than eight bits are among the sample.

    Raises:
        UserError: If no training image can be decoded.
        StorageError: If a store fails.
    """
    check_one_reads(data, train)
    headers = SAMPLE if is_url(data) else HEADERS  # each file is fetched for that
    levels, note = sampled_range(train, headers)
    notes += filter(None, [note, range_mismatch_note(test, levels, headers)])
    if levels is None:
        return train, test
    return replace(train, levels=levels), replace(test, levels=levels)


def select_test_images(names: Sequence[str], labels: np.ndarray) -> np.ndarray:
    """Selects one in TEST_EVERY images of each class, those whose names hash lowest; of two one, of a single one none.

    Args:
        names: Of the images.
        labels: [n] int64, 0 or more.

    Returns:
        [n] bool.
    """
    draws = [hashlib.sha256(name.encode(errors="surrogateescape")).digest() for name in names]
    chosen = np.zeros(len(names), bool)
    for members in np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1]):
        if len(members) > 1:
            lowest = sorted(members.tolist(), key=draws.__getitem__)
            chosen[lowest[: -(-len(members) // TEST_EVERY)]] = True
    return chosen


def test_split_note(count: int, of: int, by: str) -> str:
    """Returns the note that `count` of `of` images are held out as test data, chosen by their paths or keys (`by`)."""
    return f"{count:,} of {of:,} images are held out as test data, chosen by their {by}"


def check_one_reads(data: str, images: Split) -> None:
    """Checks that one of the images can be decoded; without second attempts, so that a failure is known soon.

    Args:
        data: The value of --data, for messages.
        images: The training images.

    Raises:
        UserError: If none can be decoded, with the reason of the first.
        StorageError: If a store fails.
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


def listing_digest(paths: Iterable[str], sizes: Mapping[str, int], use: str = "") -> str:
    """Returns a digest of paths and sizes, not contents: reading a large folder would take as long as an epoch.

    Args:
        paths: Of the images, from the dataset's folder on, in the dataset's order.
        sizes: Bytes of each image by its path.
        use: What paths and sizes do not say of how the images are used.
    """
    total = hashlib.sha256(use.encode())
    for path in paths:
        total.update(f"{path}\0{sizes[path]}\n".encode(errors="surrogateescape"))
    return total.hexdigest()
