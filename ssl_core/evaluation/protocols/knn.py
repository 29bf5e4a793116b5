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
from ssl_core.evaluation.metrics import Answers
from ssl_core.evaluation.neighbors import nearest_neighbors, too_few_note
from ssl_core.evaluation.protocol import Protocol, Result


class KNN(Protocol):
    """Classifies images by their weighted nearest neighbors."""

    version = 3  # more numbers beside top1
    on = "features"
    needs_labels = True
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
        """
        val: dict[tuple[int, int], Answers] = {}
        test: dict[tuple[int, int], Answers] = {}
        for i, stage in enumerate(features.stages, start=1):
            for split, into in (("val", val), ("test", test)):
                for k, answers in _vote(stage, features, split, config).items():
                    into[i, k] = answers
        labels = features.labels["test"]
        scores = {key: float((of.predicted == features.labels["val"]).mean()) for key, of in val.items()}

        def best(keys) -> tuple[int, int]:
            return max(keys, key=lambda key: scores[key])

        chosen = best(scores)
        numbers = test[chosen].numbers(labels)

        def accuracy(keys) -> float:
            return float((test[best(keys)].predicted == labels).mean())

        for i in range(1, len(features.stages) + 1):
            numbers[f"top1/stage{i}"] = accuracy(key for key in scores if key[0] == i)
        for k in config.neighbors:
            numbers[f"top1/k{k}"] = accuracy(key for key in scores if key[1] == k)
        return Result(
            numbers,
            test[chosen].predicted == labels,
            {"stage": chosen[0], "k": chosen[1], "val_accuracy": scores[chosen]},
            notes=too_few_note(len(features.labels["train"]), config.neighbors),
            predicted=test[chosen].predicted,
        )


def _vote(stage: dict[str, np.ndarray], features: FrozenFeatures, split: str, config: KNN.Config) -> dict[int, Answers]:
    voters = torch.from_numpy(features.labels["train"])
    truth = torch.from_numpy(features.labels[split])
    found: dict[int, list[Answers]] = {k: [] for k in config.neighbors}
    for which, cosines, rows in nearest_neighbors(stage[split], stage["train"], max(config.neighbors)):
        weights, classes = (cosines / config.temperature).exp(), voters[rows]
        for k in config.neighbors:
            votes = torch.zeros(len(rows), features.classes).scatter_add_(1, classes[:, :k], weights[:, :k])
            found[k].append(Answers.of(votes, truth[which]))
    return {k: Answers.joined(parts) for k, parts in found.items()}
