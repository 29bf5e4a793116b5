"""Which classes the images of a split are of: a metric speaks of these alone."""

from collections.abc import Mapping, Sequence

import numpy as np

SHOWN = 5  # classes that are named


def missing_classes(classes: Sequence[str], labels: Mapping[str, np.ndarray]) -> dict[str, dict]:
    """labels: by split, [n] int64 -> by split that has no image of some of `classes`: `count`, how many these are, and
    `names`, the first few."""
    found = {}
    for split, present in labels.items():
        absent = np.setdiff1d(np.arange(len(classes)), present)
        if len(absent):
            found[split] = {"count": len(absent), "names": [classes[i] for i in absent[:SHOWN].tolist()]}
    return found
