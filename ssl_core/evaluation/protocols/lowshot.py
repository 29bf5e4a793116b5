"""A linear probe on few labels: 1 % and 10 % of them, and K images of each class, several draws of each.

Regularised logistic regression by L-BFGS on L2-normalised features, as Tian et al. 2020 (arXiv:2003.11539). The stage
and the strength of the penalty are chosen by cross-validation within the few images, as the low-shot protocol of Goyal
et al. 2019 (arXiv:1905.01235) does: a held-out set would be more labels than there are.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_core.evaluation.features import Result, Subject
from ssl_core.evaluation.few_labels import Shots, drawn, left_out, told
from ssl_core.evaluation.logistic import logistic

version = 1
on = "features"
labels = True
headline, higher = "linear/10%", True


@dataclass(frozen=True, kw_only=True)
class Config:
    """Percentages are of the labelled images that a probe may use, held-out ones included."""

    shots: Shots = Shots()
    c: tuple[float, ...] = (1.0, 10.0, 100.0)
    """inverse strengths of the L2 penalty"""
    folds: int = 3


def run(subject: Subject, config: Config, seed: int) -> Result:
    """`linear/1%`, `linear/10%`, `linear/k5`, `linear/k20` are test accuracies, fractions, the means over draws;
    `linear/1%/std` and so on their standard deviations."""
    pool = np.concatenate([subject.labels["fit"], subject.labels["held"]])
    numbers, chosen = {}, {}
    for name, draws in drawn(pool, config.shots, seed).items():
        accuracies, chosen[name] = [], []
        for rows in draws:
            y = torch.from_numpy(pool[rows])
            few = [_rows(stage, rows) for stage in subject.stages]
            stage, c = _choice(few, y, subject.classes, config)
            layer = logistic(few[stage], y, subject.classes, c)
            right = layer(F.normalize(torch.from_numpy(subject.stages[stage]["test"]), dim=1)).argmax(1)
            accuracies.append(float((right.numpy() == subject.labels["test"]).mean()))
            chosen[name].append({"stage": stage + 1, "c": c})
        numbers |= told(f"linear/{name}", accuracies)
    return Result(numbers, chosen=chosen, notes=left_out(pool, config.shots))


def _rows(stage: dict[str, np.ndarray], rows: np.ndarray) -> Tensor:
    """L2-normalised features of the rows of "fit" followed by "held"."""
    fit = len(stage["fit"])
    parts = stage["fit"][rows[rows < fit]], stage["held"][rows[rows >= fit] - fit]
    place = np.empty((len(rows), stage["fit"].shape[1]), np.float32)
    place[rows < fit], place[rows >= fit] = parts
    return F.normalize(torch.from_numpy(place), dim=1)


def _choice(few: list[Tensor], y: Tensor, classes: int, config: Config) -> tuple[int, float]:
    """The stage (from 0) and penalty with the best cross-validated accuracy, the deeper stage and the stronger penalty
    of equal ones; the last stage and the middle penalty where a class has one image only."""
    folds = min(config.folds, int(y.unique(return_counts=True)[1].min()))
    if folds < 2:
        return len(few) - 1, config.c[len(config.c) // 2]
    place = torch.empty_like(y)  # which of its class an image is: folds get their share of each class
    for kind in y.unique():
        place[y == kind] = torch.arange(int((y == kind).sum()))
    fold = place % folds

    def score(stage: int, c: float) -> int:
        x, right = few[stage], 0
        for out in range(folds):
            layer = logistic(x[fold != out], y[fold != out], classes, c)
            right += int((layer(x[fold == out]).argmax(1) == y[fold == out]).sum())
        return right

    candidates = list(product(range(len(few))[::-1], sorted(config.c)))
    return max(candidates, key=lambda one: score(*one))
