"""Compares the records of two encoders, paired by seed and test image, and gives those of one their interval.

Accuracies are compared by which images were classified right, mean average precisions and mean intersections over union
by their values on the same draws of images.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from jobs.evaluation.records import unpack_bits, unpack_draws
from ssl_core.evaluation.metrics import main_measure
from ssl_core.evaluation.protocol import protocols
from ssl_core.evaluation.statistics import Interval, bootstrap_of_draws, paired_difference
from ssl_core.storage.records import EvaluationRecord

Records = Sequence[EvaluationRecord]


def stack_correct(records: Records) -> np.ndarray | None:
    """Returns which test images each of `records` is right on, [records, n_test] bool.

    It is None if they do not say, or not of equally many images.
    """
    alike = len({(record.dataset.images["test"], bool(record.correct)) for record in records}) == 1
    return np.stack([unpack_bits(record) for record in records]) if alike and records[0].correct else None


def difference(mine: Records, theirs: Records) -> Interval | None:
    """Returns what `mine` have more than `theirs` of the main number, with its interval.

    It is None where they are not of the same number of seeds and test images, or do not say enough.
    """
    right, base = stack_correct(mine), stack_correct(theirs)
    if right is not None and base is not None:
        return paired_difference(right, base) if right.shape == base.shape else None
    drawn, others = _stack_draws(mine), _stack_draws(theirs)
    if drawn is None or others is None or drawn.shape != others.shape or _images(mine) != _images(theirs):
        return None
    return bootstrap_of_draws(_values(mine) - _values(theirs), drawn - others)


def interval_of_draws(records: Records) -> Interval | None:
    """Returns the interval of a main number that has draws, over test images and seeds; None if there are none."""
    drawn = _stack_draws(records)
    if drawn is None:
        return None
    found = bootstrap_of_draws(_values(records), drawn)
    return replace(found, low=max(0.0, found.low), high=min(1.0, found.high))


def _stack_draws(records: Records) -> np.ndarray | None:
    """Returns the main number of each draw of images, [records, draws]; None as for `stack_correct`."""
    if not all(record.map_draws and _measure(record) in record.numbers for record in records):
        return None
    alike = len({(record.dataset.images["test"], len(record.map_draws or "")) for record in records}) == 1
    return np.stack([unpack_draws(record) for record in records]) if alike else None


def _images(records: Records) -> int:
    return records[0].dataset.images["test"]


def _measure(record: EvaluationRecord) -> str:
    return main_measure(protocols()[record.protocol.name].headline, record.numbers)


def _values(records: Records) -> np.ndarray:
    return np.array([record.numbers[_measure(record)] for record in records])
