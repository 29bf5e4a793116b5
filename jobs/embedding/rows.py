"""Says what is known of a dataset's images beside their features: numbers, names, splits and labels."""

from dataclasses import dataclass

import numpy as np

from ssl_core.data.dataset import Source
from ssl_core.errors import UserError

SPLITS = ("train", "test", "unlabeled")
ALL = "all"


def splits_of(source: Source) -> np.ndarray:
    """Returns the split of each image, training images first: [n] integers, places in SPLITS.

    Where a dataset has labels, its training images without one are those of the split "unlabeled".
    """
    train = np.where(source.train.labeled | (not source.classes), 0, 2)
    return np.concatenate([train, np.full(len(source.test), 1)])


def select_images(source: Source, split: str) -> np.ndarray:
    """Returns the numbers of a split's images in the dataset, whose training images come first: [n] int64, ascending.

    Args:
        source: The dataset.
        split: One of SPLITS, or "all".

    Raises:
        UserError: If the dataset has no such images.
    """
    splits = splits_of(source)
    if split == ALL:
        return np.arange(len(splits))
    found = np.flatnonzero(splits == SPLITS.index(split))
    if not len(found):
        known = [name for i, name in enumerate(SPLITS) if (splits == i).any()]
        raise UserError(f"--split {split}: {source.name} has no such images; there is {', '.join([ALL, *known])}")
    return found


@dataclass(frozen=True)
class Rows:
    """Holds what is known of some images, in the order of their features.

    Attributes:
        ids: [n] int64, their numbers in the dataset.
        paths: What the dataset calls each.
        splits: One of SPLITS for each.
        labels: [n] int64, -1 where there is none; or [n, classes] bool where images may have several.
        classes: Their names by number.
    """

    ids: np.ndarray
    paths: list[str]
    splits: list[str]
    labels: np.ndarray
    classes: tuple[str, ...]

    @property
    def several(self) -> bool:
        """Returns whether images may have several labels."""
        return self.labels.ndim == 2

    def numbers(self) -> list:
        """Returns the label of each image, -1 where there is none; or the list of its labels."""
        return [np.flatnonzero(row).tolist() for row in self.labels] if self.several else self.labels.tolist()

    def names(self) -> list:
        """Returns what `numbers` returns as names of classes, None where there is no label."""
        if self.several:
            return [[self.classes[i] for i in row] for row in self.numbers()]
        return [self.classes[i] if i >= 0 else None for i in self.numbers()]


class RowReader:
    """Looks up what is known of images of a dataset.

    Args:
        source: The dataset.

    Attributes:
        labels: Those of all images, training images first, as in Rows.
    """

    def __init__(self, source: Source):
        self.source, self.splits = source, splits_of(source)
        both = [part.labels for part in (source.train, source.test) if len(part)]
        self.labels = np.concatenate(both)

    def read(self, ids: np.ndarray) -> Rows:
        """Returns what is known of the images `ids`, [n] int64."""
        splits = [SPLITS[i] for i in self.splits[ids]]
        return Rows(ids, [self.name(i) for i in ids.tolist()], splits, self.labels[ids], self.source.classes)

    def name(self, i: int) -> str:
        """Returns what the dataset calls image `i`, in characters that files can hold."""
        train, test = self.source.train, self.source.test
        name = train.name(i) if i < len(train) else test.name(i - len(train))
        return name.encode(errors="backslashreplace").decode()
