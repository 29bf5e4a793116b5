"""Evaluates features by weighted k-nearest neighbors, without any training.

A test image's neighbors are the k images of "train" with the highest cosine similarity of standardized features. Each
votes for its label with the weight exp(similarity / temperature); the class with the largest sum is the answer. Stage
and k are those with the highest accuracy on "val".

Source: Wu et al. 2018 (arXiv:1805.01978, section 3.4).
"""

from dataclasses import dataclass

import numpy as np
import torch

from ssl_core.evaluation.features import FrozenFeatures
from ssl_core.evaluation.metrics import Answers, Scores, joined, predictions
from ssl_core.evaluation.neighbors import nearest_neighbors, too_few_note
from ssl_core.evaluation.protocol import Protocol, Result


class KNN(Protocol):
    """Classifies images by their weighted nearest neighbors."""

    version = 3  # more numbers beside top1
    on = "features"
    needs_labels = True
    multilabel = True
    headline, higher_is_better = "top1", True

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Sets the numbers of neighbors and the weights of their votes."""

        neighbors: tuple[int, ...] = (20, 200)
        """numbers of neighbors that vote; each is reported, held-out images choose"""
        temperature: float = 0.07

    def run(self, features: FrozenFeatures, config: Config, seed: int) -> Result:
        """Classifies the held-out and the test images by their neighbors and returns the test accuracies.

        Args:
            features: The encoder's features, with labels.
            config: Numbers of neighbors and temperature.
            seed: Is not used: nothing is random.

        Returns:
            Accuracies, fractions: `top1` of the stage and number of neighbors with the highest held-out accuracy, with
            what `Answers.numbers` has beside it; `top1/stageN` of stage N (counted from 1) with its own best number,
            `top1/kK` of K neighbors at its own best stage; `correct`, `predicted` and `chosen` are those of `top1`.
            Where images have several labels it is `map` in place of `top1`.
        """
        val: dict[tuple[int, int], Answers | Scores] = {}
        test: dict[tuple[int, int], Answers | Scores] = {}
        for i, stage in enumerate(features.stages, start=1):
            for split, into in (("val", val), ("test", test)):
                for k, of in _vote(stage, features, split, config).items():
                    into[i, k] = of
        labels = features.labels["test"]
        scores = {key: of.value(features.labels["val"]) for key, of in val.items()}

        def best(keys) -> tuple[int, int]:
            return max(keys, key=lambda key: scores[key])

        chosen = best(scores)
        numbers, measure = test[chosen].numbers(labels), test[chosen].measure
        for i in range(1, len(features.stages) + 1):
            numbers[f"{measure}/stage{i}"] = test[best(key for key in scores if key[0] == i)].value(labels)
        for k in config.neighbors:
            numbers[f"{measure}/k{k}"] = test[best(key for key in scores if key[1] == k)].value(labels)
        return Result(
            numbers,
            test[chosen].correct(labels),
            {"stage": chosen[0], "k": chosen[1], "val_score": scores[chosen]},
            notes=too_few_note(len(features.labels["train"]), config.neighbors),
            predicted=test[chosen].predicted,
            draws=test[chosen].draws(labels),
        )


def _vote(
    stage: dict[str, np.ndarray], features: FrozenFeatures, split: str, config: KNN.Config
) -> dict[int, Answers | Scores]:
    voters = torch.from_numpy(features.labels["train"])
    truth = torch.from_numpy(features.labels[split])
    found: dict[int, list[Answers | Scores]] = {k: [] for k in config.neighbors}
    for which, cosines, rows in nearest_neighbors(stage[split], stage["train"], max(config.neighbors)):
        weights = (cosines / config.temperature).exp()
        for k in config.neighbors:
            votes = _votes(voters, rows[:, :k], weights[:, :k], features.classes)
            found[k].append(predictions(votes, truth[which]))
    return {k: joined(parts) for k, parts in found.items()}


def _votes(labels: torch.Tensor, rows: torch.Tensor, weights: torch.Tensor, classes: int) -> torch.Tensor:
    """Adds up the weights of neighbors for each of their labels.

    Args:
        labels: Of all that may be neighbors, [m] int64 or [m, classes] bool.
        rows: Which are whose neighbors, [n, k] int64.
        weights: [n, k] float32.
        classes: The number of classes, if each has one label.

    Returns:
        [n, classes] float32; of several labels a share of all weight, by which images can be compared.
    """
    if labels.ndim == 1:
        return torch.zeros(len(rows), classes).scatter_add_(1, labels[rows], weights)
    several = [(labels[near].float() * weight[:, None]).sum(0) for near, weight in zip(rows, weights)]
    return torch.stack(several) / weights.sum(1, keepdim=True)
