"""Computes what a classifier's outputs are worth: accuracies, the confusion matrix, and mean average precision.

Outputs for images with one label each are `Answers`, for images with several they are `Scores`. A protocol treats both
alike: `predictions` makes them, `value` is what held-out images choose by, `numbers` is what is reported.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from ssl_core.evaluation.bootstrap import bootstrap_map

TOP5_FROM = 10  # classes; of fewer, five are no small choice


@dataclass(frozen=True)
class Answers:
    """Holds the answers of one or several classifiers to images that have one label each.

    Attributes:
        measure: The name of what `value` returns.
        predicted: [..., n] int64, the class with the highest score.
        among_five: [..., n] bool, whether the label is among the five classes with the highest scores; None if there
            are fewer than TOP5_FROM classes.
    """

    measure: ClassVar[str] = "top1"
    predicted: np.ndarray
    among_five: np.ndarray | None = None

    def __getitem__(self, i: int) -> "Answers":
        """Returns the answers of one of several classifiers."""
        return Answers(self.predicted[i], None if self.among_five is None else self.among_five[i])

    def correct(self, labels: np.ndarray) -> np.ndarray:
        """Returns which answers of one classifier are right, [n] bool, by labels, [n] int64."""
        return self.predicted == labels

    def draws(self, labels: np.ndarray) -> None:
        """Returns None: which answers are right says as much."""

    def value(self, labels: np.ndarray) -> float:
        """Returns the accuracy of one classifier, a fraction, by labels, [n] int64."""
        return float(self.correct(labels).mean())

    def numbers(self, labels: np.ndarray) -> dict[str, float]:
        """Returns the measures of one classifier, fractions.

        Args:
            labels: [n] int64.

        Returns:
            `top1`, the share of images whose label is the answer; `top1/balanced`, the mean of that share over the
            classes that have images, as scikit-learn's balanced_accuracy_score; and from TOP5_FROM classes on `top5`.
        """
        balanced = float(np.mean(class_accuracies(self.predicted, labels)))
        found = {"top1": self.value(labels), "top1/balanced": balanced}
        return found if self.among_five is None else {**found, "top5": float(self.among_five.mean())}


@dataclass(frozen=True)
class Scores:
    """Holds the scores of one or several classifiers for images that may have several labels each.

    Attributes:
        measure: The name of what `value` returns.
        scores: [..., n, classes] float32, higher for a more likely label.
    """

    measure: ClassVar[str] = "map"
    scores: np.ndarray
    predicted: ClassVar[None] = None

    def __getitem__(self, i: int) -> "Scores":
        """Returns the scores of one of several classifiers."""
        return Scores(self.scores[i])

    def correct(self, labels: np.ndarray) -> None:
        """Returns None: with several labels no answer is simply right."""

    def draws(self, labels: np.ndarray) -> np.ndarray:
        """Returns the mean average precision of one classifier on each of many draws of images, see `bootstrap_map`."""
        return bootstrap_map(self.scores, labels)

    def value(self, labels: np.ndarray) -> float:
        """Returns the mean average precision of one classifier over the classes that have images, a fraction.

        It is 0 if none has; of labels, [n, classes] bool.
        """
        found = average_precisions(self.scores, labels)
        return float(found.mean()) if len(found) else 0.0

    def numbers(self, labels: np.ndarray) -> dict[str, float]:
        """Returns `map`, see `value`."""
        return {"map": self.value(labels)}


def predictions(scores: Tensor, labels: Tensor) -> Answers | Scores:
    """Returns what scores say of images.

    Args:
        scores: [..., n, classes], higher for a more likely class.
        labels: [n] int64, or [n, classes] bool where images may have several, on the same device.
    """
    if labels.ndim == 2:
        return Scores(scores.float().cpu().numpy())
    predicted = scores.argmax(-1).cpu().numpy()
    if scores.shape[-1] < TOP5_FROM:
        return Answers(predicted)
    five = scores.topk(5, -1).indices
    return Answers(predicted, (five == labels[:, None]).any(-1).cpu().numpy())


def joined(parts: Sequence[Answers | Scores]) -> Answers | Scores:
    """Returns the predictions for all images of several parts, in their order."""
    scores = [part.scores for part in parts if isinstance(part, Scores)]
    if scores:
        return Scores(np.concatenate(scores, -2))
    answers = [part for part in parts if isinstance(part, Answers)]
    five = [part.among_five for part in answers if part.among_five is not None]
    predicted = np.concatenate([part.predicted for part in answers], -1)
    return Answers(predicted, np.concatenate(five, -1) if five else None)


def label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns the loss of each image, [n]: cross-entropy, or for several labels its binary form summed over classes.

    Args:
        logits: [n, classes].
        labels: [n] int64, or [n, classes] bool.
    """
    if labels.ndim == 1:
        return F.cross_entropy(logits.float(), labels, reduction="none")
    return F.binary_cross_entropy_with_logits(logits.float(), labels.float(), reduction="none").sum(1)


def label_targets(labels: Tensor, classes: int) -> Tensor:
    """Returns labels as [n, classes] float32: 1 for each that an image has."""
    return (labels if labels.ndim == 2 else F.one_hot(labels, classes)).float()


def class_accuracies(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns, for each class that has images, the share of them whose answer is right: [classes with images].

    Args:
        predicted: [n] int64.
        labels: [n] int64.
    """
    counts = np.bincount(labels)
    right = np.bincount(labels[predicted == labels], minlength=len(counts))
    return right[counts > 0] / counts[counts > 0]


def average_precisions(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the average precision of each class that has images: [classes with images].

    It is the mean of the precision at each threshold, weighted by the recall that is added there, without
    interpolation, as scikit-learn's average_precision_score; images of equal scores share a threshold.

    Args:
        scores: [n, classes].
        labels: [n, classes] bool.
    """
    found = []
    for score, truth in zip(scores.T, labels.T):
        if not truth.any():
            continue
        order = np.argsort(-score, kind="stable")
        last = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)  # of each group of equal scores
        hits = np.cumsum(truth[order])[last]
        found.append(np.sum(np.diff(hits, prepend=0) * hits / (last + 1)) / hits[-1])
    return np.array(found)


def confusion_counts(predicted: np.ndarray, labels: np.ndarray) -> tuple[tuple[int, int, int], ...]:
    """Returns the cells of the confusion matrix that are not zero: (label, answer, images), in rising order.

    Args:
        predicted: [n] int64.
        labels: [n] int64.
    """
    cells, counts = np.unique(np.stack([labels, predicted]), axis=1, return_counts=True)
    return tuple((int(label), int(answer), int(count)) for (label, answer), count in zip(cells.T, counts))


def main_measure(headline: str, numbers: Mapping[str, float]) -> str:
    """Returns the name of the main number of a result: a protocol's headline, or `map` where images have several
    labels.
    """
    return Scores.measure if Scores.measure in numbers else headline
