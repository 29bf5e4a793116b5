"""Evaluates features by a linear probe on few labels: 1 % and 10 % of them, and K images of each class.

The few images are drawn from "train" and "val" together, several times. On each draw a multinomial logistic regression
with an L2 penalty is fit by L-BFGS to L2-normalized standardized features, and its accuracy on all test images is
taken. Stage and strength of the penalty are those with the most right answers in a stratified cross-validation within
the few images: a held-out set would be more labels than there are. Where a class has a single image, the last stage and
the middle penalty are taken.

Source: the classifier is that of Tian et al. 2020 (arXiv:2003.11539), the choice within the few images that of the
low-shot protocol of Goyal et al. 2019 (arXiv:1905.01235).
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_core.evaluation.features import FrozenFeatures
from ssl_core.evaluation.few_labels import LabelSubset, mean_accuracies, sample_subsets, skipped_note
from ssl_core.evaluation.logistic import fit_logistic
from ssl_core.evaluation.protocol import Protocol, Result


class LowShot(Protocol):
    """Trains a linear classifier with few labels."""

    version = 2  # more numbers beside accuracies
    on = "features"
    needs_labels = True
    headline, higher_is_better = "linear/10%", True

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Sets the numbers of labels and the candidates for the penalty.

        Percentages are of the labeled images that a probe may use, held-out ones included.
        """

        subsets: LabelSubset = LabelSubset()
        c: tuple[float, ...] = (1.0, 10.0, 100.0)
        """inverse strengths of the L2 penalty"""
        folds: int = 3

    def run(self, features: FrozenFeatures, config: Config, seed: int) -> Result:
        """Fits a classifier to each draw of few images and returns the test accuracies.

        Args:
            features: The encoder's features, with labels.
            config: Numbers of labels, draws and penalties.
            seed: Decides the draws.

        Returns:
            Accuracies, fractions: `linear/1%`, `linear/10%`, `linear/k5` and `linear/k20`, the means over draws, and
            `linear/1%/std` and so on, their sample standard deviations, `linear/1%/balanced` and so on, the means of
            balanced accuracies; `chosen` has each draw's stage (counted from 1)
            and penalty; notes name the sizes that there are too few images for.
        """
        pool = np.concatenate([features.labels["train"], features.labels["val"]])
        numbers, chosen = {}, {}
        for name, draws in sample_subsets(pool, config.subsets, seed).items():
            found: list[np.ndarray | None] = []
            chosen[name] = []
            for rows in draws:
                y = torch.from_numpy(pool[rows])
                subset = [_normalized_rows(stage, rows) for stage in features.stages]
                stage, c = _choose_by_cross_validation(subset, y, features.classes, config)
                layer = fit_logistic(subset[stage], y, features.classes, c)
                logits = layer(F.normalize(torch.from_numpy(features.stages[stage]["test"]), dim=1))
                found.append(logits.argmax(1).numpy())
                chosen[name].append({"stage": stage + 1, "c": c})
            numbers |= mean_accuracies(f"linear/{name}", found, features.labels["test"])
        return Result(numbers, chosen=chosen, notes=skipped_note(pool, config.subsets))


def _normalized_rows(stage: dict[str, np.ndarray], rows: np.ndarray) -> Tensor:
    """Returns L2-normalized features, [m, d], of the given rows of "train" followed by "val"."""
    fit = len(stage["train"])
    parts = stage["train"][rows[rows < fit]], stage["val"][rows[rows >= fit] - fit]
    result = np.empty((len(rows), stage["train"].shape[1]), np.float32)
    result[rows < fit], result[rows >= fit] = parts
    return F.normalize(torch.from_numpy(result), dim=1)


def _choose_by_cross_validation(
    subset: list[Tensor], y: Tensor, classes: int, config: LowShot.Config
) -> tuple[int, float]:
    """Returns the stage (from 0) and the penalty with the best cross-validated accuracy.

    Of equal ones it takes the deeper stage and the stronger penalty; where a class has a single image, the last stage
    and the middle penalty.
    """
    folds = min(config.folds, int(y.unique(return_counts=True)[1].min()))
    if folds < 2:
        return len(subset) - 1, config.c[len(config.c) // 2]
    index = torch.empty_like(y)  # which of its class an image is: folds get their share of each class
    for kind in y.unique():
        index[y == kind] = torch.arange(int((y == kind).sum()))
    fold = index % folds

    def score(stage: int, c: float) -> int:
        x, correct = subset[stage], 0
        for out in range(folds):
            layer = fit_logistic(x[fold != out], y[fold != out], classes, c)
            correct += int((layer(x[fold == out]).argmax(1) == y[fold == out]).sum())
        return correct

    candidates = list(product(range(len(subset))[::-1], sorted(config.c)))
    return max(candidates, key=lambda one: score(*one))
