"""Chooses a learning rate among those that were tried."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean


@dataclass(frozen=True)
class Candidate:
    """Is a learning rate with what its trainings came to.

    Attributes:
        lr: The learning rate.
        loss: Their mean pretext loss.
        val: By dataset, their mean accuracy on held-out training images, and how many images that is of; empty if it
            was not measured.
    """

    lr: float
    loss: float
    val: Mapping[str, tuple[float, int]] = field(default_factory=dict)

    @property
    def val_accuracy(self) -> float:
        """Returns the mean of the held-out accuracies over datasets."""
        return mean(accuracy for accuracy, _ in self.val.values())

    @property
    def standard_error(self) -> float:
        """Returns the standard error of `val_accuracy` that comes from the choice of held-out images."""
        return math.sqrt(sum(p * (1 - p) / images for p, images in self.val.values())) / len(self.val)


def choose_learning_rate(candidates: Sequence[Candidate]) -> tuple[Candidate, str]:
    """Returns the best candidate, and what chose it.

    The held-out accuracy chooses, if all have one, and where it cannot tell, the pretext loss: of the rates within one
    standard error of the best accuracy the one with the lowest loss. Without accuracies it is the loss alone.

    Source: after the rule of Breiman et al. 1984, section 3.4.3, which takes the simplest within one standard error.

    Args:
        candidates: Rates that differ, at least one, measured on the same images.
    """
    by, near = "pretext loss", list(candidates)
    if all(one.val for one in candidates):
        best = max(candidates, key=lambda one: one.val_accuracy)
        near = [one for one in candidates if one.val_accuracy >= best.val_accuracy - best.standard_error]
        by = "held-out linear accuracy" + (", then pretext loss" if len(near) > 1 else "")
    return min(near, key=lambda one: (math.isnan(one.loss), one.loss)), by


def rates_around(lr: float, count: int) -> tuple[float, ...]:
    """Returns `count` rising learning rates with `lr` among them, each about 3.16 times the one before: two a decade.

    An odd number reaches as far up as down; an even one has one more below.
    """
    return tuple(float(f"{lr * 10 ** (i / 2):.3g}") for i in range(-(count // 2), count - count // 2))
