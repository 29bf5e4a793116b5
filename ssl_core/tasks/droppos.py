"""DropPos: say where the patches belong whose positions were dropped (Wang et al. 2023, arXiv:2309.03576)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from kernels.crop_flip import crop_flip
from ssl_core.augmentations import CROP, random_boxes
from ssl_core.errors import UserError
from ssl_core.optim import Optim
from ssl_core.task import Task, TaskConfig, crop_side, to_uint8


class DropPos(Task):
    """Predicts the positions of patches among all places of the image: Jigsaw for vision transformers.

    Most patches are dropped as in MAE, so that edges which continue from one to the next do not give positions away. Of
    those that are left most have no position embedding; where they belong has to be seen from what they show, with the
    others as a frame. It is the paper's task without its smoothed targets and its weights by attention.
    """

    needs_tokens = True
    capturable = True

    @dataclass(frozen=True, kw_only=True)
    class Config(TaskConfig):
        """Say where the patches belong whose positions were dropped."""

        batch: int = 128
        mask_ratio: float = 0.75
        """share of the patches that are dropped"""
        drop_ratio: float = 0.75
        """share of the patches that are left which have no position"""
        crop: float = 1.0
        """side that a random crop is resized to, as a fraction of the image's"""
        min_area: float = 0.2
        """smallest share of the image that a random crop shows"""
        hidden_dim: int = 128
        """width of the head's hidden layer"""
        optim: Optim = Optim(optimizer="adamw", lr=2e-3, weight_decay=0.05)

    config: Config

    def __init__(self, config: Config, encoder, data):
        super().__init__(config, encoder, data)
        assert encoder.prefix is not None  # see needs_tokens
        self.prefix, self.patch = encoder.prefix, encoder.patch_size
        if not 0 < config.min_area <= 1:
            raise UserError(f"droppos: --min-area is {config.min_area}: expected a share, above 0 and at most 1")
        self.side = crop_side(config.crop, data.size, self.patch)
        self.grid = self.side // self.patch
        self.kept = round(self.grid**2 * (1 - config.mask_ratio))
        self.placed = round(self.kept * (1 - config.drop_ratio))
        if not 0 <= self.placed < self.kept <= self.grid**2:
            raise UserError(
                f"droppos: --mask-ratio {config.mask_ratio} and --drop-ratio {config.drop_ratio} leave {self.kept} of "
                f"{self.grid**2} patches, {self.placed} of them with a position: expected at least one without"
            )
        self.head = nn.Sequential(
            nn.Linear(encoder.widths[-1], config.hidden_dim), nn.GELU(), nn.Linear(config.hidden_dim, self.grid**2)
        )

    def make_batch(self, batch, bits, format):
        words = bits.draw("droppos", CROP + self.grid**2)
        flips, boxes = random_boxes(batch.images, words[:, :CROP], self.config.min_area)
        images = crop_flip(batch.images, flips, boxes, size=self.side, **format.options())
        keep = words[:, CROP:].argsort(dim=1, stable=True)[:, : self.kept]  # in a random order; the first are placed
        return (images, keep), keep[:, self.placed :]

    def forward(self, encoder: Any, inputs):
        images, keep = inputs
        placed = (torch.arange(self.kept, device=keep.device) < self.placed).expand(len(keep), -1)
        tokens = encoder.tokens(images, keep, placed)
        asked = tokens[:, self.prefix + self.placed :]
        # a class token would learn nothing otherwise
        return self.head(asked + tokens[:, :1] if self.prefix else asked)

    def loss(self, predictions, targets):
        losses = F.cross_entropy(predictions.float().flatten(0, 1), targets.flatten(), reduction="none")
        return losses.view_as(targets).mean(1)

    def metrics(self, predictions, targets):
        return {"accuracy": (predictions.argmax(2) == targets).float().mean(1)}

    def visualize(self, inputs, predictions, targets):
        """Shows the patches without a position where they are said to belong, beside where they do."""
        images, _ = inputs
        patches = F.unfold(images.float(), self.patch, stride=self.patch)
        shown = [patches.gather(2, targets[:, None].expand(-1, patches.shape[1], -1))] * 2
        blank = torch.full_like(patches, float(patches.min()))
        side = (self.side, self.side)
        sheets = [
            F.fold(blank.scatter(2, where[:, None].expand_as(own), own), side, self.patch, stride=self.patch)
            for own, where in zip(shown, (predictions.argmax(2), targets))
        ]
        rows = to_uint8(torch.cat([*sheets, images.float()], dim=3))
        right = (predictions.argmax(2) == targets).sum(1).tolist()
        count = targets.shape[1]
        return [(image, f"{n} of {count} right: said | true | image") for image, n in zip(rows, right)]
