"""Supervised classification: no pretext task but the ceiling that they are held against."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from kernels.random import randint
from kernels.rotate import rotate
from ssl_core.errors import UserError
from ssl_core.optim import Optim
from ssl_core.task import Task, TaskConfig, crop_corners, crop_side, to_uint8


class Supervised(Task):
    """Trains on the labeled images with random crops, flips and cross-entropy, in the same loop as any pretext task."""

    capturable = True

    @dataclass(frozen=True, kw_only=True)
    class Config(TaskConfig):
        """Train with labels: the ceiling that pretext tasks are held against."""

        needs_labels = True

        crop: float = 0.75
        """side of the random window that is shown, as a fraction of the image's"""
        batch: int = 128
        optim: Optim = Optim(optimizer="sgd", lr=0.3, weight_decay=5e-4)

    config: Config

    def __init__(self, config: Config, encoder, data):
        super().__init__(config, encoder, data)
        if not data.classes:
            raise UserError("supervised training needs labels: a folder with one sub-folder for each class, or a table")
        self.size = crop_side(config.crop, data.size, encoder.patch_size)
        self.head = nn.Linear(encoder.widths[-1], data.classes)

    def make_batch(self, batch, bits, format):
        words = bits.draw("supervised", 3)
        offsets, flips = crop_corners(words[:, 1:3], batch.images, self.size), randint(words[:, 0], 2)
        inputs = rotate(batch.images, torch.zeros_like(flips), flips, offsets, size=self.size, **format.options())
        return inputs, batch.labels

    def forward(self, encoder, inputs):
        return self.head(encoder(inputs)[-1].mean((2, 3)))

    def loss(self, predictions, targets):
        return F.cross_entropy(predictions.float(), targets, ignore_index=-1, reduction="none")

    def metrics(self, predictions, targets):
        return {"accuracy": (predictions.argmax(1) == targets).float()}

    def visualize(self, inputs, predictions, targets):
        says = predictions.argmax(1).tolist()
        return [(image, f"class {t}, says {s}") for image, t, s in zip(to_uint8(inputs), targets.tolist(), says)]
