"""Linear probe: a softmax classifier on frozen features, for every stage and several learning rates at once."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from ssl_core.evaluation.features import FrozenFeatures, Result

version = 1
on = "features"
labels = True
headline, higher = "top1", True


@dataclass(frozen=True, kw_only=True)
class Config:
    """SGD with momentum on cached features, cosine schedule, no weight decay (as Kolesnikov et al. 2019)."""

    learning_rates: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
    """each trains its own classifier in the same pass; held-out images choose"""
    epochs: int = 40
    batch: int = 256


def run(features: FrozenFeatures, config: Config, seed: int) -> Result:
    """`top1` is the test accuracy of the stage and learning rate with the best held-out accuracy; `top1/stageN`
    that of stage N with its own best learning rate (N counts from 1). Higher is better; fractions."""
    numbers: dict[str, float] = {}
    stages = []
    for i, stage in enumerate(features.stages, start=1):
        val, test = _probe(stage, features, config, seed)  # [rates], [rates, n_test] bool
        rate = int(val.argmax())
        numbers[f"top1/stage{i}"] = float(test[rate].mean())
        chosen = {"stage": i, "learning_rate": config.learning_rates[rate], "val_accuracy": float(val[rate])}
        stages.append((test[rate], chosen))
    correct, chosen = max(stages, key=lambda stage: stage[1]["val_accuracy"])  # the first of equal ones
    numbers["top1"] = float(correct.mean())
    return Result(numbers, correct, chosen)


def _probe(stage: dict[str, np.ndarray], features: FrozenFeatures, config: Config, seed: int):
    x, y = torch.from_numpy(stage["train"]), torch.from_numpy(features.labels["train"])
    rates = torch.tensor(config.learning_rates)
    # one wide layer holds every learning rate's classifier: [d, rates * classes]
    shape = (len(rates), features.classes)
    weight = torch.zeros(x.shape[1], len(rates) * features.classes)
    bias = torch.zeros(len(rates) * features.classes)
    speed = [torch.zeros_like(weight), torch.zeros_like(bias)]
    order = torch.Generator().manual_seed(seed)
    per_epoch = -(-len(x) // config.batch)
    total, step = per_epoch * config.epochs, 0
    for _ in range(config.epochs):
        for rows in torch.randperm(len(x), generator=order).split(config.batch):
            batch = x[rows]
            logits = torch.addmm(bias, batch, weight).view(len(rows), *shape)
            error = (logits.softmax(2) - F.one_hot(y[rows], features.classes)[:, None]) / len(rows)
            error = error.flatten(1)
            decay = 0.5 * (1 + np.cos(np.pi * step / total))
            lr = (rates * decay).repeat_interleave(features.classes)
            for parameter, velocity, gradient in zip((weight, bias), speed, (batch.T @ error, error.sum(0))):
                velocity.mul_(0.9).add_(gradient)
                parameter -= lr * velocity
            step += 1

    def correct(split: str) -> np.ndarray:
        logits = (torch.from_numpy(stage[split]) @ weight + bias).view(-1, *shape)
        return (logits.argmax(2) == torch.from_numpy(features.labels[split])[:, None]).T.numpy()

    return correct("val").mean(1), correct("test")
