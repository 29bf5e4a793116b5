"""Weighted k-nearest neighbours on frozen features (Wu et al. 2018, arXiv:1805.01978): nothing is trained."""

from dataclasses import dataclass

import numpy as np
import torch

from ssl_core.evaluation.features import Result, Subject
from ssl_core.evaluation.neighbors import few, nearest

version = 2  # norms divide similarities, no longer features
on = "features"
labels = True
headline, higher = "top1", True


@dataclass(frozen=True, kw_only=True)
class Config:
    """Cosine similarity of L2-normalised features, votes weighted by exp(similarity / temperature)."""

    neighbours: tuple[int, ...] = (20, 200)
    """numbers of neighbours that vote; each is reported, held-out images choose"""
    temperature: float = 0.07


def run(subject: Subject, config: Config, seed: int) -> Result:
    """`top1` is the test accuracy of the stage and number of neighbours that held-out images choose; `top1/stageN`
    that of stage N with its own best number; `top1/kK` that of K neighbours at its own best stage. Fractions."""
    held, test = {}, {}
    for i, stage in enumerate(subject.stages, start=1):
        for split, into in (("held", held), ("test", test)):
            for k, right in _vote(stage, subject, split, config).items():
                into[i, k] = right
    scores = {key: float(right.mean()) for key, right in held.items()}

    def best(keys) -> tuple[int, int]:
        return max(keys, key=lambda key: scores[key])

    chosen = best(scores)
    numbers = {"top1": float(test[chosen].mean())}
    for i in range(1, len(subject.stages) + 1):
        numbers[f"top1/stage{i}"] = float(test[best(key for key in scores if key[0] == i)].mean())
    for k in config.neighbours:
        numbers[f"top1/k{k}"] = float(test[best(key for key in scores if key[1] == k)].mean())
    notes = few(len(subject.labels["fit"]), config.neighbours)
    return Result(numbers, test[chosen], {"stage": chosen[0], "k": chosen[1], "held_out": scores[chosen]}, notes=notes)


def _vote(stage: dict[str, np.ndarray], subject: Subject, split: str, config: Config) -> dict[int, np.ndarray]:
    voters = torch.from_numpy(subject.labels["fit"])
    truth = torch.from_numpy(subject.labels[split])
    right: dict[int, list[torch.Tensor]] = {k: [] for k in config.neighbours}
    for which, cosines, rows in nearest(stage[split], stage["fit"], max(config.neighbours)):
        weights, classes = (cosines / config.temperature).exp(), voters[rows]
        for k in config.neighbours:
            votes = torch.zeros(len(rows), subject.classes).scatter_add_(1, classes[:, :k], weights[:, :k])
            right[k].append(votes.argmax(1) == truth[which])
    return {k: torch.cat(parts).numpy() for k, parts in right.items()}
