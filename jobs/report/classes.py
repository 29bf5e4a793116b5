"""Shows how well each class is recognized, and what its images are taken for."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from jobs.report.chart_parts import Spec, chart
from jobs.report.comparison import EncoderRow, readable

MOST_ROWS = 60  # classes in the table; of more, the worst recognized
MOST_CELLS = 30  # classes along a side of a confusion matrix that can be read
CELL = 22  # pixels


@dataclass(frozen=True)
class ClassAccuracies:
    """Holds the share of right answers to the test images of each class, by one protocol, as means over seeds.

    Attributes:
        protocol: The protocol.
        encoders: Those that have answers.
        classes: Names of classes that have test images, the one first that is recognized worst, over all encoders.
        images: How many test images each has.
        shares: [classes, encoders], fractions.
        left_out: How many classes are not among them, since all others are recognized better.
    """

    protocol: str
    encoders: tuple[EncoderRow, ...]
    classes: tuple[str, ...]
    images: tuple[int, ...]
    shares: np.ndarray
    left_out: int


def class_accuracies(rows: list[EncoderRow], protocol: str) -> ClassAccuracies | None:
    """Returns how well each class is recognized; None if no encoder has answers, or only one class has images."""
    found = [(row, counts) for row in rows if (counts := _confusion(row, protocol)) is not None]
    if not found:
        return None
    encoders, matrices = zip(*found)
    images = np.max([matrix.sum(1) for matrix in matrices], 0)
    present = np.flatnonzero(images)
    if len(present) < 2:
        return None
    shares = np.stack([np.diag(of)[present] / np.maximum(1, of.sum(1)[present]) for of in matrices], 1)
    seeds = [len(row.records[protocol]) for row in encoders]
    order = np.argsort(shares.mean(1), kind="stable")[:MOST_ROWS]
    names = _class_names(encoders[0], protocol)
    counts = np.max([matrix.sum(1)[present] // n for matrix, n in zip(matrices, seeds)], 0)
    return ClassAccuracies(
        protocol,
        encoders,
        tuple(names[present[i]] for i in order),
        tuple(int(counts[i]) for i in order),
        shares[order],
        len(present) - len(order),
    )


def confusion(row: EncoderRow, protocol: str) -> Spec | None:
    """Shows the confusion matrix of an encoder, all seeds together, as shares of the test images of each class.

    It returns None where there are no answers, or too many classes to be read.
    """
    matrix = _confusion(row, protocol)
    if matrix is None or len(matrix) > MOST_CELLS:
        return None
    names, totals = _class_names(row, protocol), matrix.sum(1)
    values = [
        {
            "label": names[i],
            "answer": names[j],
            "share": 100 * matrix[i, j] / totals[i],
            "shown": f"{100 * matrix[i, j] / totals[i]:.1f} % of {totals[i]:,}",
        }
        for i in np.flatnonzero(totals)
        for j in range(len(matrix))
    ]
    axis = {"labelLimit": 110, "labelAngle": -45}
    encoding = {
        "x": {"field": "answer", "type": "nominal", "sort": names, "title": "answer", "axis": axis},
        "y": {"field": "label", "type": "nominal", "sort": names, "title": "class", "axis": {"labelLimit": 110}},
        "color": {
            "field": "share",
            "type": "quantitative",
            "title": "%",
            "scale": {"domain": [0, 100], "scheme": "viridis"},
        },
        "tooltip": [
            {"field": "label", "title": "class"},
            {"field": "answer", "title": "answer"},
            {"field": "shown", "title": "images"},
        ],
    }
    cells = {"mark": {"type": "rect"}, "encoding": encoding}
    return chart(f"Confusion matrix of {row.name}", values, [cells], CELL * int((totals > 0).sum()))


def _confusion(row: EncoderRow, protocol: str) -> np.ndarray | None:
    """Returns how often test images of each class got each answer, [classes, classes], over all seeds; None without
    answers."""
    records = [record for record in row.records.get(protocol, ()) if record.confusion]
    if not records or len(records) < len(row.records[protocol]):
        return None
    classes = records[0].dataset.classes
    matrix = np.zeros((classes, classes), np.int64)
    for record in records:
        for label, answer, count in record.confusion:
            matrix[label, answer] += count
    return matrix


def _class_names(row: EncoderRow, protocol: str) -> list[str]:
    """Returns the classes' names, each its own."""
    known = [readable(name) for name in row.records[protocol][0].dataset.class_names]
    repeated = {name for name, count in Counter(known).items() if count > 1}
    return [f"{name} ({i})" if name in repeated else name for i, name in enumerate(known)]
