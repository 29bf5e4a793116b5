"""Colorization: predict the colors of an image from its lightness (Zhang et al. 2016, arXiv:1603.08511)."""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from kernels.lab import lab
from kernels.random import randint
from ssl_core.batch_norm import GlobalBatchNorm2d
from ssl_core.color_bins import ColorBins, lab_to_srgb
from ssl_core.errors import UserError
from ssl_core.optim import Optim
from ssl_core.task import Task, TaskConfig, cover, crop_corners, crop_side, to_uint8


class Colorize(Task):
    """Predicts the color of each cell of an image, as a distribution over the bins of the ab plane, from lightness.

    Most cells of photos are gray or brown, so rare colors count more: by the distribution of the images that are
    trained on, which is counted as training goes. A step's own loss is weighed by what was counted before it.
    """

    capturable = True

    @dataclass(frozen=True, kw_only=True)
    class Config(TaskConfig):
        """Predict the colors of an image from its lightness."""

        crop: float = 1.0
        """side of the random window that is shown, as a fraction of the image's"""
        cell: int = 4
        """side in pixels of the cells whose mean color is predicted; it divides the stride of the encoder's last map,
        or is a multiple of it"""
        hidden_dim: int = 128
        """width of the decoder"""
        rebalance: float = 0.5
        """share of the uniform distribution that is mixed into that of the images' colors before rare colors are
        weighted up by it, above 0; 1: all colors count alike"""
        sigma: float = 5.0
        """width of the Gaussian over colors that targets are spread by and their distribution is smoothed by; bins are
        10 apart"""
        optim: Optim = Optim(optimizer="adamw", lr=3e-3, weight_decay=0.05)

    config: Config

    def __init__(self, config: Config, encoder, data):
        super().__init__(config, encoder, data)
        if not 0 < config.rebalance <= 1:
            raise UserError(f"colorize: --rebalance is {config.rebalance}, expected above 0 and at most 1")
        if not 0 < config.sigma < float("inf"):
            raise UserError(f"colorize: --sigma is {config.sigma}, expected above 0")
        self.stage = encoder.last_map
        self.stride = stride = encoder.strides[self.stage]
        cell = config.cell
        if cell < 1 or (stride % cell and cell % stride):
            raise UserError(
                f"colorize: --cell is {cell} px, expected one that divides {stride} px, the stride of "
                f"{encoder.name}'s last map, or is a multiple of it"
            )
        multiple = math.lcm(cell, encoder.patch_size)
        if data.size < multiple:
            raise UserError(
                f"colorize: images of {data.size} px are too small for cells of {cell} px and {encoder.name}: "
                f"expected at least {multiple} px"
            )
        self.size = min(crop_side(config.crop, data.size, multiple), data.size // multiple * multiple)
        self.colors = ColorBins(config.rebalance, config.sigma)
        finer, coarser = max(1, stride // cell), max(1, cell // stride)
        self.decoder = nn.Sequential(
            nn.Conv2d(encoder.widths[self.stage], config.hidden_dim, 3, padding=1, bias=False),
            GlobalBatchNorm2d(config.hidden_dim),
            nn.ReLU(inplace=True),
            nn.AvgPool2d(coarser),
            nn.Conv2d(config.hidden_dim, len(self.colors.counts) * finer**2, 1),
            nn.PixelShuffle(finer),
        )

    def make_batch(self, batch, bits, format):
        words = bits.draw("colorize", 3)
        flips, offsets = randint(words[:, 0], 2), crop_corners(words[:, 1:3], batch.images, self.size)
        lightness, bins = lab(batch.images, flips, offsets, size=self.size, cell=self.config.cell, **format.options())
        return lightness, (bins, batch.weights)

    def forward(self, encoder, inputs):
        maps = encoder(inputs)
        seen = maps[self.stage]
        if maps[-1] is not seen:  # a class token, which would learn nothing otherwise
            seen = seen + maps[-1]
        cells = self.size // self.config.cell
        return self.decoder(cover(seen, self.stride, self.size))[:, :, :cells, :cells]

    def loss(self, predictions, targets):
        return self.colors.cross_entropy(predictions.float(), targets[0]).mean((1, 2))

    def metrics(self, predictions, targets):
        """Returns the shares of cells whose bin is the likeliest, and one of the five likeliest."""
        bins = targets[0]
        likelier = (predictions > predictions.gather(1, bins[:, None])).sum(1)
        return {
            "accuracy": (predictions.argmax(1) == bins).float().mean((1, 2)),
            "top5": (likelier < 5).float().mean((1, 2)),
        }

    def after_step(self, encoder, outcomes, progress):
        bins, weights = (torch.cat(parts) for parts in zip(*(targets for _, targets in outcomes)))
        self.colors.count(bins, weights)

    def visualize(self, inputs, predictions, targets):
        """Shows lightness, and in the colors that are predicted and in those of the targets' bins."""
        gray = to_uint8(inputs[:, :1])  # whose mean and std are not those of the other channels
        colors = self.colors.mean_colors(predictions), self.colors.centers[targets[0]].movedim(3, 1)
        strips = [gray]
        for ab in colors:
            ab = F.interpolate(ab.detach().cpu(), gray.shape[1:3]).movedim(1, 3)
            strips.append(lab_to_srgb(torch.cat([gray[..., :1] / 2.55, ab], dim=3)))
        return [(image, "lightness | colorized | original, by cell") for image in torch.cat(strips, dim=2)]
