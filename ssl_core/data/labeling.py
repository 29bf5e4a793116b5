"""Turns what is known of each image, a split's name and labels as texts, into splits and numbered classes."""

import json
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from ssl_core.data.folder_layout import class_of, similar_classes_note
from ssl_core.data.image_folder import select_test_images, test_split_note
from ssl_core.data.split import has_label
from ssl_core.errors import UserError, some

NO_LABEL = -1
LABEL_LENGTH = 200  # characters; a longer text is no name of a class


class Labeled(NamedTuple):
    """What is known of some images, in the order that ids follow.

    Attributes:
        roles: [n] str: "train", "test", "val" or "unlabeled"; "other" for images of which no name says it.
        labels: [n] int64, rows of `values`, NO_LABEL for none; or [n, len(values)] bool where an image has several.
        values: The labels as texts.
        counts: How messages count what has a role, such as "3 train shards", for each role that there is.
        unit: What messages call what has a role: "shards" or "images".
        by: What its role is known by, such as "names".
    """

    roles: np.ndarray
    labels: np.ndarray
    values: tuple[str, ...]
    counts: Mapping[str, str]
    unit: Literal["shards", "images"]
    by: str


class Arranged(NamedTuple):
    """Splits and classes.

    Attributes:
        train: [n] bool, the training images, the unlabeled ones among them.
        test: [n] bool, the test images.
        labels: [n] int64, the class of each image, NO_LABEL for none; or [n, len(classes)] bool.
        classes: Their names by number; none if there are no labels.
        unlabeled: Whether images are trained on because a name says that they are unlabeled.
    """

    train: np.ndarray
    test: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    unlabeled: bool


def label_text(value: Any) -> str | None:
    """Returns a label, a number or a name, as text; None if there is none, as for NaN or a number below zero, which by
    custom stands for none.

    Raises:
        ValueError: If it is no class, such as a list; it shows the label.
    """
    if value is None or value == "" or value != value:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int):
        return str(value) if value >= 0 else None
    if isinstance(value, str) and len(value := value.strip()) <= LABEL_LENGTH and value.isprintable():
        return None if value.startswith("-") and value[1:].isdigit() else value or None
    raise ValueError(f"{str(value)[:40]!r}")


def label_in_text(text: str) -> str | None:
    """Returns the label in a text that somebody wrote, in which 7.0 is 7; as `label_text` in all else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    # a name like any other, where the file is no JSON
    return label_text(text if isinstance(value, bool) or value is None else value)


def arrange(data: str, found: Labeled, keys: Callable[[np.ndarray], list[str]], notes: list[str]) -> Arranged:
    """Decides which images are trained on and which ones test, and numbers the classes of the training images.

    Training images without a label are trained on, and never evaluated.
    Where no name says which images test, one in a few of each class is held out.

    Args:
        data: The value of --data, for messages.
        found: What is known of the images.
        keys: Names images by their rows, [k] int64; those held out are chosen by these names.
        notes: Gets how the images were understood, for the user.

    Raises:
        UserError: If there is nothing to train on, or the test images have classes of their own.
    """
    train, test, unlabeled = _choose_splits(data, found, notes)
    if not train.any():
        raise UserError(f"--data {data}: no images to train on; {'; '.join(notes)}".rstrip("; "))
    learned = train & has_label(found.labels)
    labels, classes = _number_classes(found, learned, notes)
    labels[unlabeled] = False if labels.ndim == 2 else NO_LABEL
    labeled = has_label(labels)
    if classes and not test.any():
        held_out = np.zeros(len(train), bool)
        rows = np.flatnonzero(learned & labeled)
        first = labels[rows].argmax(1) if labels.ndim == 2 else labels[rows]  # of several, to have each class somewhere
        held_out[rows] = select_test_images(keys(rows), first)
        notes.append(test_split_note(int(held_out.sum()), len(rows), "keys" if found.unit == "shards" else "paths"))
        train, test = train & ~held_out, held_out
    elif classes:
        _check_test(data, found, test, labeled, classes, notes)
        test = test & labeled
    return Arranged(train | unlabeled, test, labels, classes, bool(unlabeled.any()))


def _choose_splits(data: str, found: Labeled, notes: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the images to train on, those to test with, and those that are trained on as well, without labels: [n]
    bool each; without test images if no name says which they are."""
    roles, counts = found.roles, found.counts
    if not set(counts) - {"other"}:
        nothing = np.zeros(len(roles), bool)
        return ~nothing, nothing, nothing
    train = "train" if "train" in counts else "other"
    if train not in counts:
        if "unlabeled" not in counts:
            raise UserError(f"--data {data}: no {found.unit} to train on: found {some(counts.values())}")
        train = "unlabeled"
    labeled = has_label(found.labels)
    known = [role for role in (train, "test", "val") if labeled[roles == role].any()]
    # competitions ship test images without labels
    test = next((role for role in known[1:]), None) if train in known else None
    notes.append(f"trained on {counts[train]}" + (f", tested on {counts[test]}" if test else "") + f", by {found.by}")
    if train != "unlabeled" and "unlabeled" in counts:
        notes.append(f"trained on without labels: {counts['unlabeled']}")
    if unused := [count for role, count in counts.items() if role not in (train, test, "unlabeled")]:
        notes.append(f"not used: {', '.join(unused)}")
    return roles == train, roles == (test or ""), (roles == "unlabeled") & (roles != train)


def _check_test(
    data: str, found: Labeled, test: np.ndarray, labeled: np.ndarray, classes: tuple[str, ...], notes: list[str]
) -> None:
    """Raises UserError if test images have classes that no training image has; adds a note about those without any."""
    used, plain = _used(found.labels[test]), _plain(found.values)
    if lacking := [found.values[i] for i in used if class_of(plain[i], classes) is None]:
        raise UserError(
            f"--data {data}: test {found.unit} have classes that the training {found.unit} lack: {some(lacking)}"
        )
    if without := int((test & ~labeled).sum()):
        notes.append(f"{without:,} test images without a label are not used")


def _used(labels: np.ndarray) -> list[int]:
    """Returns the rows of `values` that some images have, of their labels as in Labeled."""
    found = np.flatnonzero(labels.any(0)) if labels.ndim == 2 else np.unique(labels[labels >= 0])
    return found.tolist()


def _plain(values: tuple[str, ...]) -> list[str]:
    """Returns texts so that those of one class are equal: without zeros before, if all are numbers, or in form NFC."""
    if all(value.isdecimal() for value in values):
        return [str(int(value)) for value in values]
    return [unicodedata.normalize("NFC", value) for value in values]


def _number_classes(found: Labeled, learned: np.ndarray, notes: list[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns the images' classes, NO_LABEL or False for a label that no training image has, and the classes' names.

    They are ordered by number where all labels are numbers, else by name. There are none unless the images `learned`,
    [n] bool, which have a label each, are of at least two.
    """
    nothing = np.full(len(found.labels), NO_LABEL)
    trained, values = found.labels[learned], found.values
    if not len(trained):
        return nothing, ()
    plain = _plain(values)
    names = sorted({plain[i] for i in _used(trained)}, key=int if all(map(str.isdecimal, plain)) else None)
    if len(names) < 2:
        notes.append(f"labels are not used, all images have the same: {names[0]}")
        return nothing, ()
    notes += similar_classes_note(names)
    numbers = [class_of(name, tuple(names)) for name in plain]
    if trained.ndim == 2:
        several = np.zeros((len(found.labels), len(names)), bool)
        for column, number in enumerate(numbers):
            if number is not None:
                several[:, number] |= found.labels[:, column]
        return several, tuple(names)
    table = np.array([NO_LABEL if i is None else i for i in [*numbers, None]])  # the last for NO_LABEL itself
    return table[found.labels], tuple(names)
