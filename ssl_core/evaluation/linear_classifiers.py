"""Trains linear classifiers on fixed features by gradient descent, one for each of several learning rates."""

from functools import partial

import numpy as np
import torch
from torch import Tensor

from ssl_core.evaluation.metrics import label_targets


def fit_linear(
    x: Tensor, y: Tensor, classes: int, learning_rates: tuple[float, ...], epochs: int, batch: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Trains a classifier [d] -> [classes] with bias for each learning rate, all in one pass.

    They start from zero and are trained by cross-entropy, in its binary form where an item has several labels: SGD
    with momentum 0.9, no weight decay, a cosine schedule to zero without warm-up, shuffled batches.

    Args:
        x: [n, d] float32.
        y: [n] int64, or [n, classes] bool, on the same device.
        classes: How many there are.
        learning_rates: Of each classifier.
        epochs: Passes over the features.
        batch: Features of a step.
        seed: Decides their order.

    Returns:
        Weights, [d, rates * classes] float32, and biases, [rates * classes].
    """
    to_probabilities = torch.sigmoid if y.ndim == 2 else partial(torch.softmax, dim=2)
    rates = torch.tensor(learning_rates, device=x.device)
    # one wide layer holds every learning rate's classifier: [d, rates * classes]
    weight = torch.zeros(x.shape[1], len(rates) * classes, device=x.device)
    bias = torch.zeros(len(rates) * classes, device=x.device)
    speed = [torch.zeros_like(weight), torch.zeros_like(bias)]
    order = torch.Generator().manual_seed(seed)
    per_epoch = -(-len(x) // batch)
    total, step = per_epoch * epochs, 0
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=order).to(x.device).split(batch):
            items = x[rows]
            logits = torch.addmm(bias, items, weight).view(len(rows), len(rates), classes)
            error = (to_probabilities(logits) - label_targets(y[rows], classes)[:, None]) / len(rows)
            error = error.flatten(1)
            decay = 0.5 * (1 + np.cos(np.pi * step / total))
            lr = (rates * decay).repeat_interleave(classes)
            for parameter, velocity, gradient in zip((weight, bias), speed, (items.T @ error, error.sum(0))):
                velocity.mul_(0.9).add_(gradient)
                parameter -= lr * velocity
            step += 1
    return weight, bias
