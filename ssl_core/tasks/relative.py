"""Relative position: which of eight neighbors is this patch? (Doersch, Gupta and Efros 2015, arXiv:1505.05192)."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from kernels.random import randint, uniform
from kernels.shuffle_tiles import shuffle_tiles
from ssl_core.errors import UserError
from ssl_core.optim import Optim
from ssl_core.task import Task, TaskConfig, to_uint8

CELLS = 3  # along a side: the middle one, and its eight neighbors
NEIGHBORS = 8


class Relative(Task):
    """Predicts where a patch lies from the patch in the middle of the image, among eight directions.

    Shortcuts are countered as in Jigsaw: gaps and jitter between patches (against edges that continue), each patch
    standardized (against shared brightness and color), some images in gray and the color channels shifted (against
    chromatic aberration, which tells where in a photo a patch was). The patch in the middle goes through the encoder
    once for all neighbors that are asked for.
    """

    normalization = "image"
    capturable = True

    @dataclass(frozen=True, kw_only=True)
    class Config(TaskConfig):
        """Say which of eight neighbors a patch is."""

        batch: int = 128
        neighbors: int = 4
        """different neighbors of each image that are asked for, 1 to 8"""
        gap: float = 0.0
        """largest gap between patches as a fraction of a cell; 0: a quarter"""
        grayscale: float = 0.3
        """share of images that lose their color"""
        shift: int = -1
        """largest shift of each color channel in pixels; -1: 1 below 96 px, 2 from there"""
        hidden_dim: int = 512
        """width of the head's hidden layer"""
        optim: Optim = Optim(optimizer="sgd", lr=0.3, weight_decay=5e-4)

    config: Config

    def __init__(self, config: Config, encoder, data):
        super().__init__(config, encoder, data)
        if not 1 <= config.neighbors <= NEIGHBORS:
            raise UserError(f"relative: --neighbors is {config.neighbors}, expected 1 to {NEIGHBORS}")
        cell = data.size // CELLS
        gap = round(cell * (config.gap or 1 / 4))
        self.patch = (cell - gap) // encoder.patch_size * encoder.patch_size
        self.gap = cell - self.patch
        if self.patch < max(4, encoder.patch_size) or self.gap < 0:
            raise UserError(
                f"relative: {data.size} px cut {CELLS}x{CELLS} with gap {gap} leaves patches of {cell - gap} px, too "
                f"small for {encoder.name}: use larger images or a smaller gap"
            )
        self.shift = config.shift if config.shift >= 0 else (1 if data.size < 96 else 2)
        self.head = nn.Sequential(
            nn.Linear(2 * encoder.widths[-1], config.hidden_dim),
            nn.BatchNorm1d(config.hidden_dim),
            nn.ReLU(inplace=True),
            nn.Linear(config.hidden_dim, NEIGHBORS),
        )

    def make_batch(self, batch, bits, format):
        b, height, width, channels = batch.images.shape
        patches, asked = 1 + self.config.neighbors, self.config.neighbors
        words = bits.draw("relative", 2 + 2 * patches + 2 * channels + 1 + NEIGHBORS).split(
            [2, 2 * patches, 2 * channels, 1, NEIGHBORS], dim=1
        )
        free = [side - (self.patch + self.gap) * CELLS + 1 for side in (height, width)]
        origin = torch.stack([randint(words[0][:, i], free[i]) for i in (0, 1)], dim=1)
        targets = words[4].argsort(dim=1, stable=True)[:, :asked]  # [b, asked], of the cells without the middle one
        middle = CELLS**2 // 2
        cells = torch.cat([torch.full_like(targets[:, :1], middle), targets + (targets >= middle)], dim=1)
        starts = torch.stack([cells // CELLS, cells % CELLS], dim=2) * (self.patch + self.gap)
        jitter = randint(words[1].view(b, patches, 2), self.gap + 1)
        views = shuffle_tiles(
            batch.images,
            torch.arange(patches, device=cells.device).expand(b, -1).contiguous(),
            origin[:, None] + starts + jitter,
            randint(words[2].view(b, channels, 2), self.shift + 1),
            (uniform(words[3][:, 0]) < self.config.grayscale).long(),
            tile=self.patch,
            standardize=True,
            **format.options(),
        )
        return views, targets

    def forward(self, encoder, inputs):
        embedded = encoder(inputs)[-1].mean((2, 3)).unflatten(0, (-1, 1 + self.config.neighbors))
        middle, others = embedded[:, :1].expand(-1, self.config.neighbors, -1), embedded[:, 1:]
        return self.head(torch.cat([middle, others], dim=2).flatten(0, 1)).unflatten(0, (-1, self.config.neighbors))

    def loss(self, predictions, targets):
        return F.cross_entropy(predictions.float().transpose(1, 2), targets, reduction="none").mean(1)

    def metrics(self, predictions, targets):
        return {"accuracy": (predictions.argmax(2) == targets).float().mean(1)}

    def visualize(self, inputs, predictions, targets):
        """Shows the patches where they lie, with what is said of each that was asked for."""
        side = self.patch + 2
        patches = F.pad(to_uint8(inputs), (0, 0, 0, 2, 0, 2), value=255).unflatten(0, (len(targets), -1))
        pictures = []
        for own, answers, true in zip(patches, predictions.argmax(2).tolist(), targets.tolist()):
            sheet = torch.full((CELLS * side, CELLS * side, 3), 255, dtype=torch.uint8)
            middle = CELLS**2 // 2
            for patch, cell in zip(own, [middle, *(place + (place >= middle) for place in true)]):
                y, x = divmod(cell, CELLS)
                sheet[y * side : (y + 1) * side, x * side : (x + 1) * side] = patch
            right = sum(one == other for one, other in zip(answers, true))
            pictures.append((sheet, f"{right} of {len(true)} right: {' '.join(map(str, answers))}"))
        return pictures
