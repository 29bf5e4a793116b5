"""Finds classes that a split has no image of: a metric of that split says nothing about them."""

from collections.abc import Mapping, Sequence

import numpy as np

SHOWN = 5  # classes that are named


def missing_classes(classes: Sequence[str], labels: Mapping[str, np.ndarray]) -> dict[str, dict]:
    """Returns for each split the classes of which it has no image.

    Args:
        classes: Names of all classes; a label is a place in this list.
        labels: By split, [n] int64.

    Returns:
        By split, for those with missing classes only: `count`, how many are missing, and `names`, the first SHOWN of
        them.
    """
    found = {}
    for split, present in labels.items():
        absent = np.setdiff1d(np.arange(len(classes)), present)
        if len(absent):
            found[split] = {"count": len(absent), "names": [classes[i] for i in absent[:SHOWN].tolist()]}
    return found
