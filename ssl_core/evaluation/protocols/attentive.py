"""Evaluates an encoder by an attentive probe: a classifier that looks where it needs to on the last frozen map.

Features of masked image modeling lie in the cells of a map rather than in their mean, which a linear probe looks at.
Here several learned queries each attend to the map's cells, softmax(query . cell), and gather a part of a linear
projection of the cells with these weights; a linear layer classifies what they have gathered. Cells are standardized by
the mean and standard deviation of each channel over "train". The classifiers of all learning rates are trained by AdamW
with a cosine schedule on cross-entropy, in its binary form where images have several labels; held-out images choose.

Source: efficient probing (Psomas et al. 2025, arXiv:2506.10178), with one learning rate chosen by held-out images.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_core.errors import Diverged
from ssl_core.evaluation.frozen_encoder import FrozenEncoder
from ssl_core.evaluation.metrics import Answers, Scores, joined, label_loss, predictions
from ssl_core.evaluation.protocol import Protocol, Result


class AttentiveProbe(Protocol):
    """Trains a classifier that attends to the cells of the last map."""

    version = 1
    on = "encoder"
    needs_labels = True
    multilabel = True
    headline, higher_is_better = "top1", True

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Sets the classifiers' size and how they are trained."""

        queries: int = 16
        """that attend to the cells, at most: as many as divide the map's channels"""
        learning_rates: tuple[float, ...] = (0.001, 0.003, 0.01)
        """each trains its own classifier in the same pass; held-out images choose"""
        epochs: int = 30
        batch: int = 256
        cells: int = 8
        """cells along a side of a map at most: a larger map is averaged"""
        memory: float = 4.0
        """GB that the training images' cells may take: larger maps are averaged to fewer"""

    def run(self, model: FrozenEncoder, config: Config, seed: int) -> Result:
        """Trains the classifiers and returns the test accuracy of the chosen one.

        Args:
            model: The encoder with its images.
            config: Size and training of the classifiers.
            seed: Decides their initialization and the order of the images.

        Returns:
            `top1`, a fraction, with what `Answers.numbers` has beside it, and `cells`, how many a map has along a side;
            `correct`, `predicted` and `chosen` are those of `top1`. Of equal learning rates the first is chosen. Where
            images have several labels it is `map` in place of `top1`.

        Raises:
            Diverged: If training diverges at every learning rate.
        """
        _, width, *sides = model.blank_maps()[model.last_map].shape
        side = _cells(width, min(sides), len(model.parts["train"][1]), config)
        x = torch.empty(len(model.parts["train"][1]), side**2, width, device=model.device)
        count = 0
        for cells, _ in _read(model, "train", side):  # not all of the images, if some cannot be decoded
            x[count : count + len(cells)] = cells
            count += len(cells)
        x = x[:count]
        y = torch.from_numpy(model.labels["train"]).to(x.device)
        mean, std = x.mean((0, 1)), x.std((0, 1)).clamp(min=1e-6)
        x.sub_(mean).div_(std)
        classes = len(model.source.classes)
        probes = _train(x, y, classes, config, seed)
        del x

        @torch.no_grad()
        def answers(split: str) -> list[Answers | Scores]:
            rows = [
                [predictions(probe((cells - mean) / std), labels) for probe in probes]
                for cells, labels in _read(model, split, side)
            ]
            return [joined(list(of)) for of in zip(*rows)]

        val, truth = answers("val"), model.labels["val"]
        finite = [all(p.isfinite().all() for p in probe.parameters()) for probe in probes]
        values = [of.value(truth) if good else -1.0 for of, good in zip(val, finite)]
        if not any(finite):
            raise Diverged(f"the attentive probe diverged at the learning rates {config.learning_rates}")
        best = max(range(len(probes)), key=values.__getitem__)
        test, labels = answers("test")[best], model.labels["test"]
        chosen = {"learning_rate": config.learning_rates[best], "val_score": values[best]}
        return Result(
            {**test.numbers(labels), "cells": float(side)},
            test.correct(labels),
            chosen,
            predicted=test.predicted,
            draws=test.draws(labels),
        )


class AttentionPool(nn.Module):
    """Classifies an image by what learned queries gather from its cells.

    Args:
        width: Channels of a cell.
        classes: Number of classes.
        queries: How many queries; they have to divide the width.
    """

    def __init__(self, width: int, classes: int, queries: int):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, width) * width**-0.5)
        self.values = nn.Linear(width, width, bias=False)
        self.classifier = nn.Linear(width, classes)

    def forward(self, cells: Tensor) -> Tensor:
        """Returns logits, [b, classes].

        Args:
            cells: [b, n, width].
        """
        attention = (cells @ self.queries.T).softmax(dim=1)  # [b, n, queries]
        values = self.values(cells).unflatten(2, (len(self.queries), -1))  # [b, n, queries, width / queries]
        return self.classifier(torch.einsum("bnq,bnqd->bqd", attention, values).flatten(1))


def _train(x: Tensor, y: Tensor, classes: int, config: AttentiveProbe.Config, seed: int) -> list[AttentionPool]:
    """Trains a classifier for each learning rate on [n, cells, width] and their labels."""
    width = x.shape[2]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        probes = [AttentionPool(width, classes, math.gcd(config.queries, width)) for _ in config.learning_rates]
    probes = [probe.to(x.device) for probe in probes]
    order, per_epoch = torch.Generator().manual_seed(seed), -(-len(x) // config.batch)
    optimizers = [
        torch.optim.AdamW(probe.parameters(), lr, weight_decay=0.0)
        for probe, lr in zip(probes, config.learning_rates, strict=True)
    ]
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(one, per_epoch * config.epochs) for one in optimizers]
    for _ in range(config.epochs):
        for rows in torch.randperm(len(x), generator=order).to(x.device).split(config.batch):
            for probe, optimizer, schedule in zip(probes, optimizers, schedules):
                optimizer.zero_grad(set_to_none=True)
                label_loss(probe(x[rows]), y[rows]).mean().backward()
                optimizer.step()
                schedule.step()
    return [probe.eval() for probe in probes]


def _cells(width: int, side: int, images: int, config: AttentiveProbe.Config) -> int:
    """Returns the cells along a side that maps are averaged to, so that all training images' maps have room."""
    room = math.isqrt(max(1, int(config.memory * 1e9 / (4 * width * images))))
    return max(1, min(config.cells, side, room))


def _read(model: FrozenEncoder, split: str, side: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields the cells of a split's images, [b, side**2, width] float32, with their labels."""
    for images, labels in model.images(split):
        one = model.feature_maps(images)[model.last_map]
        yield F.adaptive_avg_pool2d(one, side).flatten(2).transpose(1, 2).contiguous(), labels
