"""Finds classes that a split has no image of: a metric of that split says nothing about them."""

from collections.abc import Mapping, Sequence

import numpy as np

from ssl_core.storage.records import MissingClasses

SHOWN = 5  # classes that are named


def missing_classes(classes: Sequence[str], labels: Mapping[str, np.ndarray]) -> dict[str, MissingClasses]:
    """Returns for each split the classes of which it has no image.

    Args:
        classes: Names of all classes; a label is a place in this list.
        labels: By split, [n] int64, or [n, len(classes)] bool.

    Returns:
        By split, for those with missing classes only: how many are missing, and the names of the first SHOWN.
    """
    found = {}
    for split, present in labels.items():
        present = np.flatnonzero(present.any(0)) if present.ndim == 2 else present
        absent = np.setdiff1d(np.arange(len(classes)), present)
        if len(absent):
            names = tuple(classes[int(i)] for i in absent[:SHOWN])
            found[split] = MissingClasses(count=len(absent), names=names)
    return found
