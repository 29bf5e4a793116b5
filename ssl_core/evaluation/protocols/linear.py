"""Evaluates features by a linear probe: the test accuracy of a softmax classifier that is trained on them.

For every stage and every learning rate a classifier [d] -> [classes] with bias starts from zero and is trained on the
standardized features of "train" by cross-entropy, in its binary form where images have several labels: SGD with
momentum 0.9, no weight decay, a cosine schedule to zero without warm-up, shuffled batches, no augmentation. For each
stage the learning rate with the highest accuracy on "val" is taken, and of the stages the one with the highest accuracy
there; test images choose nothing.

Source: SGD with momentum on frozen features, as Kolesnikov et al. 2019 (arXiv:1901.09005).
"""

from dataclasses import dataclass

import numpy as np
import torch

from ssl_core.evaluation.features import FrozenFeatures
from ssl_core.evaluation.linear_classifiers import fit_linear
from ssl_core.evaluation.metrics import Answers, Scores, predictions
from ssl_core.evaluation.protocol import Protocol, Result


class LinearProbe(Protocol):
    """Trains a linear classifier on frozen features."""

    version = 2  # more numbers beside top1
    on = "features"
    needs_labels = True
    multilabel = True
    headline, higher_is_better = "top1", True

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Sets how the classifiers are trained."""

        learning_rates: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
        """each trains its own classifier in the same pass; held-out images choose"""
        epochs: int = 40
        batch: int = 256

    def run(self, features: FrozenFeatures, config: Config, seed: int) -> Result:
        """Trains the classifiers and returns their test accuracies.

        Args:
            features: The encoder's features, with labels.
            config: How to train.
            seed: Decides the order of the images.

        Returns:
            Accuracies, fractions: `top1` of the chosen stage and learning rate, with what `Answers.numbers` has beside
            it; `top1/stageN` of stage N (counted from 1) with its own best learning rate; `correct`, `predicted` and
            `chosen` are those of `top1`. Of equal ones the shallower stage and the smaller place in `learning_rates`
            are chosen. Where images have several labels it is `map` in place of `top1`.
        """
        numbers: dict[str, float] = {}
        stages, labels = [], features.labels["test"]
        for i, stage in enumerate(features.stages, start=1):
            val, test = _probe(stage, features, config, seed)  # [rates], and of each rate
            rate = int(val.argmax())
            numbers[f"{test.measure}/stage{i}"] = test[rate].value(labels)
            chosen = {"stage": i, "learning_rate": config.learning_rates[rate], "val_score": float(val[rate])}
            stages.append((test[rate], chosen))
        best, chosen = max(stages, key=lambda stage: stage[1]["val_score"])  # the first of equal ones
        numbers |= best.numbers(labels)
        return Result(numbers, best.correct(labels), chosen, predicted=best.predicted, draws=best.draws(labels))


def _probe(
    stage: dict[str, np.ndarray], features: FrozenFeatures, config: LinearProbe.Config, seed: int
) -> tuple[np.ndarray, Answers | Scores]:
    """Trains a stage's classifiers, all learning rates in one pass.

    Returns:
        Accuracies, or mean average precisions, on "val", [rates], and the predictions for "test", [rates, n_test].
    """
    x, y = torch.from_numpy(stage["train"]), torch.from_numpy(features.labels["train"])
    classes, rates = y.shape[1] if features.multilabel else features.classes, config.learning_rates
    weight, bias = fit_linear(x, y, classes, rates, config.epochs, config.batch, seed)

    def of(split: str) -> Answers | Scores:
        logits = (torch.from_numpy(stage[split]) @ weight + bias).view(-1, len(rates), classes)
        return predictions(logits.transpose(0, 1), torch.from_numpy(features.labels[split]))

    val = of("val")
    return np.array([val[i].value(features.labels["val"]) for i in range(len(rates))]), of("test")
