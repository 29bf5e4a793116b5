"""Jigsaw: name the permutation that an image's tiles were put in (Noroozi and Favaro 2016, arXiv:1603.09246)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels.random import randint, uniform
from kernels.shuffle_tiles import shuffle_tiles
from ssl_core.errors import UserError
from ssl_core.optim import Optim
from ssl_core.permutations import default_count, permutation_set
from ssl_core.task import Task, TaskConfig, to_uint8


class Jigsaw(Task):
    """Predicts the permutation of an image's tiles among a fixed set of permutations.

    Shortcuts are countered: a random gap between tiles (against edges that continue), each tile standardized (against
    shared brightness and color), some images in gray and the color channels shifted (against chromatic aberration).

    The tiles go through the encoder once; further permutations reorder their embeddings, which costs next to
    nothing (Kolesnikov et al. 2019, arXiv:1901.09005).
    """

    normalization = "image"
    capturable = True

    @dataclass(frozen=True, kw_only=True)
    class Config(TaskConfig):
        """Name the permutation that an image's tiles were put in."""

        batch: int = 128
        grid: int = 0
        """tiles along a side; 0: 2 below 96 px, 3 from there"""
        permutations: int = 0
        """size of the permutation set; 0: 24 for 2x2, 72 for 3x3, 240 for 4x4"""
        orders: int = 8
        """permutations scored for each image from one pass of its tiles"""
        gap: float = 0.0
        """largest gap between tiles as a fraction of a cell; 0: an eighth for 2x2, a quarter from 3x3"""
        grayscale: float = 0.3
        """share of images that lose their color"""
        shift: int = -1
        """largest shift of each color channel in pixels; -1: 1 below 96 px, 2 from there"""
        hidden_dim: int = 512
        """width of the head's hidden layer"""
        optim: Optim = Optim(optimizer="sgd", lr=0.6, weight_decay=5e-4)

    config: Config
    permutations: Tensor

    def __init__(self, config: Config, encoder, data):
        super().__init__(config, encoder, data)
        small = data.size < 96
        self.grid = config.grid or (2 if small else 3)
        cell = data.size // self.grid
        gap = round(cell * (config.gap or (1 / 8 if self.grid == 2 else 1 / 4)))
        self.tile = (cell - gap) // encoder.patch_size * encoder.patch_size
        self.gap = cell - self.tile
        if self.tile < max(4, encoder.patch_size) or self.gap < 0:
            patches = f", which {encoder.name} cuts into patches of {encoder.patch_size} px" * (encoder.patch_size > 1)
            raise UserError(
                f"jigsaw: {data.size} px cut {self.grid}x{self.grid} with gap {gap} leaves tiles of "
                f"{cell - gap} px{patches}: use larger images, a coarser grid or a smaller gap"
            )
        if config.orders < 1:
            raise UserError(f"jigsaw: --orders is {config.orders}, expected at least 1")
        self.shift = config.shift if config.shift >= 0 else (1 if small else 2)
        tiles, count = self.grid**2, config.permutations or default_count(self.grid)
        permutations = torch.from_numpy(permutation_set(self.grid, count).copy())
        self.register_buffer("permutations", permutations, persistent=False)
        self.head = nn.Sequential(
            nn.Linear(tiles * encoder.widths[-1], config.hidden_dim),
            nn.BatchNorm1d(config.hidden_dim),
            nn.ReLU(inplace=True),
            nn.Linear(config.hidden_dim, count),
        )

    def make_batch(self, batch, bits, format):
        b, height, width, channels = batch.images.shape
        tiles, orders = self.grid**2, self.config.orders
        words = bits.draw("jigsaw", 2 + 2 * tiles + 2 * channels + 1 + orders).split(
            [2, 2 * tiles, 2 * channels, 1, orders], dim=1
        )
        free = [side - (self.tile + self.gap) * self.grid + 1 for side in (height, width)]
        origin = torch.stack([randint(words[0][:, i], free[i]) for i in (0, 1)], dim=1)
        index = torch.arange(tiles, device=words[0].device)
        starts = torch.stack([index // self.grid, index % self.grid], dim=1) * (self.tile + self.gap)
        jitter = randint(words[1].view(b, tiles, 2), self.gap + 1)
        shifts = randint(words[2].view(b, channels, 2), self.shift + 1)
        grays = (uniform(words[3][:, 0]) < self.config.grayscale).long()
        targets = randint(words[4], len(self.permutations))  # [b, orders]
        first = self.permutations[targets[:, 0]]
        views = shuffle_tiles(
            batch.images,
            first,
            origin[:, None] + starts + jitter,
            shifts,
            grays,
            tile=self.tile,
            standardize=True,
            **format.options(),
        )
        # slot s of order k wants tile permutations[k][s], which lies in the slot where `first` put it
        return (views, torch.argsort(first, dim=1).repeat(orders, 1, 1).transpose(0, 1), targets), targets

    def forward(self, encoder, inputs):
        views, lies, targets = inputs
        b, orders, tiles = lies.shape
        embedded = encoder(views)[-1].mean((2, 3)).view(b, tiles, -1)
        slots = lies.gather(2, self.permutations[targets])  # [b, orders, tiles]
        rows = embedded[torch.arange(b, device=slots.device)[:, None, None], slots]
        return self.head(rows.flatten(2).flatten(0, 1)).view(b, orders, -1)

    def loss(self, predictions, targets):
        return F.cross_entropy(predictions.float().transpose(1, 2), targets, reduction="none").mean(1)

    def metrics(self, predictions, targets):
        return {"accuracy": (predictions.argmax(2) == targets).float().mean(1)}

    def visualize(self, inputs, predictions, targets):
        views, grid = to_uint8(inputs[0]), self.grid
        tiles = F.pad(views, (0, 0, 0, 2, 0, 2), value=255).unflatten(0, (-1, grid, grid))
        puzzles = tiles.permute(0, 1, 3, 2, 4, 5).flatten(1, 2).flatten(2, 3)
        says, true = predictions[:, 0].argmax(1).tolist(), targets[:, 0].tolist()
        return [(image, f"order {t}, says {s}") for image, t, s in zip(puzzles, true, says)]
