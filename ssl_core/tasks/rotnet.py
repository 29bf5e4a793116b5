"""RotNet: predict by how many quarter turns an image was turned (Gidaris et al. 2018, arXiv:1803.07728)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from kernels.random import randint
from kernels.rotate import rotate, rotate_all
from ssl_core.optim import Optim
from ssl_core.task import Task, TaskConfig, crop_corners, crop_side, to_uint8


class RotNet(Task):
    """Predicts the rotation of an image among four.

    Rotations are exact quarter turns of the cropped pixels: resampling would leave a trace that gives them away.
    """

    capturable = True

    @dataclass(frozen=True, kw_only=True)
    class Config(TaskConfig):
        """Predict by how many quarter turns an image was turned."""

        rotations: Literal["all", "one"] = "all"
        """all: the four turns of every image; one: one random turn of each"""
        crop: float = 0.75
        """side of the random window that is shown, as a fraction of the image's"""
        optim: Optim = Optim(optimizer="sgd", lr=0.06, weight_decay=2e-4)

    config: Config

    def __init__(self, config: Config, encoder, data):
        super().__init__(config, encoder, data)
        self.size = crop_side(config.crop, data.size, encoder.patch_size)
        self.head = nn.Linear(encoder.widths[-1], 4)

    def make_batch(self, batch, bits, format):
        words = bits.draw("rotnet", 4)
        flips, offsets = randint(words[:, 0], 2), crop_corners(words[:, 1:3], batch.images, self.size)
        if self.config.rotations == "all":
            inputs = rotate_all(batch.images, flips, offsets, size=self.size, **format.options())
            return inputs, torch.arange(4, device=inputs.device).repeat(len(flips), 1)
        rotations = randint(words[:, 3], 4)
        inputs = rotate(batch.images, rotations, flips, offsets, size=self.size, **format.options())
        return inputs, rotations[:, None]

    def forward(self, encoder, inputs):
        return self.head(encoder(inputs)[-1].mean((2, 3)))

    def loss(self, predictions, targets):
        losses = F.cross_entropy(predictions.float(), targets.flatten(), reduction="none")
        return losses.view_as(targets).mean(1)

    def metrics(self, predictions, targets):
        right = predictions.argmax(1).view_as(targets) == targets
        return {"accuracy": right.float().mean(1)}

    def visualize(self, inputs, predictions, targets):
        says, true = predictions.argmax(1).tolist(), targets.flatten().tolist()
        return [(image, f"turned {90 * t}°, says {90 * s}°") for image, t, s in zip(to_uint8(inputs), true, says)]
