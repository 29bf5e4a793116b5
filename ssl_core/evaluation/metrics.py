"""Computes what a classifier's answers are worth: top-1, balanced and top-5 accuracy, and the confusion matrix."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

TOP5_FROM = 10  # classes; of fewer, five are no small choice


@dataclass(frozen=True)
class Answers:
    """Holds the answers of one or several classifiers to images.

    Attributes:
        predicted: [..., n] int64, the class with the highest score.
        among_five: [..., n] bool, whether the label is among the five classes with the highest scores; None if there
            are fewer than TOP5_FROM classes.
    """

    predicted: np.ndarray
    among_five: np.ndarray | None = None

    @classmethod
    def of(cls, scores: Tensor, labels: Tensor) -> "Answers":
        """Returns the answers that scores give.

        Args:
            scores: [..., n, classes], higher for a more likely class.
            labels: [n] int64 on the same device.
        """
        predicted = scores.argmax(-1).cpu().numpy()
        if scores.shape[-1] < TOP5_FROM:
            return cls(predicted)
        five = scores.topk(5, -1).indices
        return cls(predicted, (five == labels[:, None]).any(-1).cpu().numpy())

    @classmethod
    def joined(cls, parts: list["Answers"]) -> "Answers":
        """Returns the answers to all images of several parts, in their order."""
        five = [part.among_five for part in parts if part.among_five is not None]
        predicted = np.concatenate([part.predicted for part in parts], -1)
        return cls(predicted, np.concatenate(five, -1) if five else None)

    def __getitem__(self, i: int) -> "Answers":
        """Returns the answers of one of several classifiers."""
        return Answers(self.predicted[i], None if self.among_five is None else self.among_five[i])

    def numbers(self, labels: np.ndarray) -> dict[str, float]:
        """Returns the measures of one classifier, fractions.

        Args:
            labels: [n] int64.

        Returns:
            `top1`, the share of images whose label is the answer; `top1/balanced`, the mean of that share over the
            classes that have images, as scikit-learn's balanced_accuracy_score; and from TOP5_FROM classes on `top5`.
        """
        top1 = float((self.predicted == labels).mean())
        found = {"top1": top1, "top1/balanced": float(np.mean(class_accuracies(self.predicted, labels)))}
        return found if self.among_five is None else {**found, "top5": float(self.among_five.mean())}


def class_accuracies(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns, for each class that has images, the share of them whose answer is right: [classes with images].

    Args:
        predicted: [n] int64.
        labels: [n] int64.
    """
    counts = np.bincount(labels)
    right = np.bincount(labels[predicted == labels], minlength=len(counts))
    return right[counts > 0] / counts[counts > 0]


def confusion_counts(predicted: np.ndarray, labels: np.ndarray) -> tuple[tuple[int, int, int], ...]:
    """Returns the cells of the confusion matrix that are not zero: (label, answer, images), in rising order.

    Args:
        predicted: [n] int64.
        labels: [n] int64.
    """
    cells, counts = np.unique(np.stack([labels, predicted]), axis=1, return_counts=True)
    return tuple((int(label), int(answer), int(count)) for (label, answer), count in zip(cells.T, counts))
