"""PIRL: know an image by its transformed version, too (Misra and van der Maaten 2020, arXiv:1912.01991)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from kernels.random import randint
from kernels.rotate import rotate
from kernels.shuffle_tiles import shuffle_tiles
from ssl_core.augmentations import BYTES, COLOR, CROP, ContrastiveAugmentation, RandomCrops, as_bhwc, resized_crops
from ssl_core.errors import UserError
from ssl_core.memory_bank import MemoryBank, MemoryOptions
from ssl_core.optim import Optim
from ssl_core.task import Task, TaskConfig, to_uint8

SHUFFLED_SHARE = 0.6  # smallest share of an image that is cut into tiles: section 3.3 and VISSL's pirl_jigsaw


class PIRL(Task):
    """Learns features that stay the same when an image is rotated or its tiles are shuffled.

    RotNet and Jigsaw predict what was done to an image; PIRL asks for features that do not depend on it. An image's row
    in a memory bank is compared with its features f, and with the features g of its transformed version:
    loss = lambda NCE(row, g) + (1 - lambda) NCE(row, f), each against the rows of other images (equation 6). Only f
    updates the row, and f takes the place of the row the first ten times that an image is seen (--memory-warmup 0 is
    the paper's way). Tiles are embedded one by one; their embeddings, in the shuffled order, are embedded together.
    """

    capturable = True

    @dataclass(frozen=True, kw_only=True)
    class Config(TaskConfig):
        """Have the same features for an image and its rotated or tile-shuffled version."""

        batch: int = 128
        transform: Literal["rotation", "jigsaw", "both"] = "rotation"
        """rotation: a random quarter turn; jigsaw: tiles in any random order; both: rotated, then tile-shuffled"""
        weight: float = 0.5
        """lambda, the share of the transformed version in the loss; for 0 there is npid"""
        grid: int = 0
        """tiles along a side; 0: 2 below 96 px, 3 from there"""
        projection_dim: int = 128
        """width of the features in the memory"""
        memory: MemoryOptions = MemoryOptions(memory_warmup=10)
        views: ContrastiveAugmentation = ContrastiveAugmentation()
        optim: Optim = Optim(optimizer="adamw", lr=3e-3, weight_decay=0.05)

        @property
        def side_by_side(self):
            return self.memory.side_by_side

    config: Config

    def __init__(self, config: Config, encoder, data):
        super().__init__(config, encoder, data)
        if not 0 < config.weight <= 1:
            raise UserError(f"pirl: --weight is {config.weight}, expected above 0 and at most 1")
        self.memory = MemoryBank(data.images, config.projection_dim, config.memory)
        self.side = config.views.side(data.size, encoder.patch_size)
        self.head = nn.Linear(encoder.widths[-1], config.projection_dim)
        self.tiles = 1
        if config.transform != "rotation":
            self.whole = data.size
            self.grid = config.grid or (2 if data.size < 96 else 3)
            if self.grid < 2:
                raise UserError(f"pirl: --grid is {self.grid}, a puzzle needs at least 2x2 tiles")
            self.cell = data.size // self.grid
            gap = self.cell // (8 if self.grid == 2 else 4)  # against edges that continue, as in Jigsaw
            self.tile = (self.cell - gap) // encoder.patch_size * encoder.patch_size
            least = max(4, encoder.patch_size)
            if self.tile < least:
                raise UserError(f"pirl: {data.size} px cut {self.grid}x{self.grid} leaves tiles of under {least} px")
            self.tiles = self.grid**2
            self.embed = nn.Linear(encoder.widths[-1], config.projection_dim)
        across = self.tiles * config.projection_dim if self.tiles > 1 else encoder.widths[-1]
        self.transformed = nn.Linear(across, config.projection_dim)

    def make_batch(self, batch, bits, format):
        tiles, negatives = self.tiles, self.memory.negatives
        words = bits.draw("pirl", CROP + COLOR + CROP + 1 + tiles * (3 + COLOR) + negatives).split(
            [CROP, COLOR, CROP, 1, tiles, 2 * tiles, tiles * COLOR, negatives], dim=1
        )
        views = self.config.views
        plain = RandomCrops(self.side, views.min_area)
        cut = plain if tiles == 1 else RandomCrops(self.whole, SHUFFLED_SHARE)
        image, other = resized_crops(batch.images, torch.stack([words[0], words[2]], dim=1), (plain, cut))
        image = views.color(image, words[1], format)
        other = views.color(self._transform(other, *words[3:6]), words[6].reshape(-1, COLOR), format)
        others = self.memory.sample_negatives(words[7], batch.ids)
        return (image, other, batch.ids, others, batch.weights), (batch.ids, batch.weights)

    def _transform(self, images, turn, order, jitter):
        """Returns [b * tiles, side, side, 3] uint8: the rotated images, or each one's tiles in their shuffled order."""
        still = torch.zeros_like(turn).expand(-1, 2)
        if self.config.transform != "jigsaw":
            rotations = randint(turn[:, 0], 4)
            images = as_bhwc(rotate(images, rotations, still[:, 0], still, size=images.shape[1], **BYTES))
        if self.tiles == 1:
            return images
        index = torch.arange(self.tiles, device=images.device)
        starts = torch.stack([index // self.grid, index % self.grid], dim=1) * self.cell
        corners = starts + randint(jitter.view(-1, self.tiles, 2), self.cell - self.tile + 1)
        shifts = still[:, None].expand(-1, 3, 2)
        tiles = shuffle_tiles(
            images,
            order.argsort(dim=1, stable=True),
            corners,
            shifts,
            still[:, 0],
            tile=self.tile,
            standardize=False,
            **BYTES,
        )
        return as_bhwc(tiles)

    def forward(self, encoder, inputs):
        image, other, ids, others, weights = inputs
        plain = self.head(encoder(image)[-1].mean((2, 3)))
        seen = encoder(other)[-1].mean((2, 3))
        if self.tiles > 1:
            seen = self.embed(seen).view(len(plain), -1)
        features = F.normalize(torch.stack([plain, self.transformed(seen)], dim=1).float(), dim=2)
        return features[:, 0], self.memory.cosines(features, ids, others, weights, self.config.batch)

    def loss(self, predictions, targets):
        plain, transformed = self.memory.nce(predictions[1]).unbind(1)
        return self.config.weight * transformed + (1 - self.config.weight) * plain

    def metrics(self, predictions, targets):
        """Returns whether the row nearest to the transformed version is its image's, and the cosine of the two."""
        cosines = predictions[1][:, 1]
        return {"accuracy": (cosines.argmax(1) == 0).float(), "cosine": cosines[:, 0]}

    def after_step(self, encoder, outcomes, progress):
        for predictions, (ids, weights) in outcomes:
            self.memory.update(ids, predictions[0].detach(), weights, self.config.batch)

    def visualize(self, inputs, predictions, targets):
        image, other, cosines = to_uint8(inputs[0]), to_uint8(inputs[1]), predictions[1]
        if self.tiles > 1:
            tiles = F.pad(other, (0, 0, 0, 2, 0, 2), value=255).unflatten(0, (-1, self.grid, self.grid))
            other = tiles.permute(0, 1, 3, 2, 4, 5).flatten(1, 2).flatten(2, 3)
        ranks, counts = (cosines[:, 1] > cosines[:, 1, :1]).sum(1) + 1, cosines[:, 1].isfinite().sum(1)
        return [
            (side_by_side_images(*pair), f"own row {plain:.2f} | {moved:.2f}, rank {rank} of {count}")
            for *pair, plain, moved, rank, count in zip(image, other, *cosines[:, :, 0].T, ranks, counts)
        ]


def side_by_side_images(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Returns two pictures side by side as one, the lower of them on white.

    Args:
        left: [h, w, 3] uint8.
        right: [h', w', 3] uint8.

    Returns:
        [max(h, h'), w + w' + 4, 3] uint8.
    """
    high = max(len(left), len(right))
    padded = [F.pad(image, (0, 0, 0, 2, 0, high - len(image)), value=255) for image in (left, right)]
    return torch.cat(padded, dim=1)
