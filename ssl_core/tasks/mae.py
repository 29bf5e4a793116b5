"""MAE: fill in the patches that the encoder never sees (He et al. 2022, arXiv:2111.06377)."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels.crop_flip import crop_flip
from ssl_core.augmentations import CROP, random_boxes
from ssl_core.errors import UserError
from ssl_core.optim import Optim
from ssl_core.task import Task, TaskConfig, crop_side, to_uint8

HEAD = 32  # channels of each head of attention in the decoder
EPSILON = 1e-6  # of the variance of a patch's pixels, as in the authors' code


class MAE(Task):
    """Predicts the pixels of the patches that were dropped before the encoder, with a small transformer.

    The encoder sees a quarter of an image's patches, which makes it fast; a decoder gets their tokens, and a learned
    token at every other place. So many patches are dropped that what is missing cannot be guessed from its neighbors
    alone. Each patch's pixels are standardized by their own mean and variance, which teaches better features than their
    brightness does (table 1d of the paper).
    """

    needs_tokens = True
    capturable = True

    @dataclass(frozen=True, kw_only=True)
    class Config(TaskConfig):
        """Fill in the patches that the encoder never sees."""

        batch: int = 128
        mask_ratio: float = 0.75
        """share of the patches that are dropped"""
        crop: float = 1.0
        """side that a random crop is resized to, as a fraction of the image's"""
        min_area: float = 0.2
        """smallest share of the image that a random crop shows"""
        decoder_dim: int = 0
        """width of the decoder, a multiple of 32; 0: two thirds of the encoder's, as the paper's 512 of 768"""
        decoder_depth: int = 2
        """blocks of the decoder; the paper's has 8"""
        optim: Optim = Optim(optimizer="adamw", lr=2e-3, weight_decay=0.05)

    config: Config
    positions: Tensor

    def __init__(self, config: Config, encoder, data):
        super().__init__(config, encoder, data)
        assert encoder.prefix is not None  # see needs_tokens
        self.prefix, self.patch = encoder.prefix, encoder.patch_size
        if not 0 < config.min_area <= 1:
            raise UserError(f"mae: --min-area is {config.min_area}: expected a share of the image, above 0, at most 1")
        self.side = crop_side(config.crop, data.size, self.patch)
        grid = self.side // self.patch
        self.patches = grid**2
        self.kept = round(self.patches * (1 - config.mask_ratio))
        if not 0 < self.kept < self.patches:
            raise UserError(
                f"mae: --mask-ratio {config.mask_ratio} keeps {self.kept} of {self.patches} patches: expected at least "
                "one, and one dropped"
            )
        width = config.decoder_dim or max(1, round(encoder.widths[-1] * 2 / 3 / HEAD)) * HEAD
        if width % HEAD or width < 1 or config.decoder_depth < 1:
            raise UserError(
                f"mae: --decoder-dim is {width} and --decoder-depth {config.decoder_depth}: expected a multiple of "
                f"{HEAD} and at least 1"
            )
        self.embed = nn.Linear(encoder.widths[-1], width)
        self.mask_token = nn.Parameter(0.02 * torch.randn(width))
        self.register_buffer("positions", sincos_positions(grid, width), persistent=False)
        options: dict[str, Any] = dict(dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
        blocks = (
            nn.TransformerEncoderLayer(width, width // HEAD, 4 * width, **options) for _ in range(config.decoder_depth)
        )
        self.decoder = nn.Sequential(*blocks, nn.LayerNorm(width))
        self.head = nn.Linear(width, 3 * self.patch**2)

    def make_batch(self, batch, bits, format):
        words = bits.draw("mae", CROP + self.patches)
        flips, boxes = random_boxes(batch.images, words[:, :CROP], self.config.min_area)
        # pixels are targets, too, which bfloat16 would round to whole gray levels
        exact = replace(format, dtype=torch.float32)
        images = crop_flip(batch.images, flips, boxes, size=self.side, **exact.options())
        order = words[:, CROP:].argsort(dim=1, stable=True)
        keep = order[:, : self.kept]
        dropped = torch.ones_like(order).scatter(1, keep, 0)
        return (images.to(format.dtype), keep), (self.patchify(images), dropped)

    def patchify(self, images: Tensor) -> Tensor:
        """Cuts images into patches, row by row.

        Args:
            images: [b, 3, side, side].

        Returns:
            [b, patches, 3 * patch**2].
        """
        return F.unfold(images.float(), self.patch, stride=self.patch).transpose(1, 2)

    def forward(self, encoder: Any, inputs):
        images, keep = inputs
        seen = self.embed(encoder.tokens(images, keep))
        prefix, kept = seen[:, : self.prefix], seen[:, self.prefix :]
        index = keep[:, :, None].expand(-1, -1, kept.shape[2])
        every = self.mask_token.to(kept.dtype).expand(len(keep), self.patches, -1).scatter(1, index, kept)
        decoded = self.decoder(torch.cat([prefix, every + self.positions], dim=1))
        return self.head(decoded[:, self.prefix :])

    def loss(self, predictions, targets):
        patches, dropped = targets
        mean, std = _statistics(patches)
        errors = (predictions.float() - (patches - mean) / std).square().mean(2)
        return (errors * dropped).sum(1) / dropped.sum(1)

    def visualize(self, inputs, predictions, targets):
        patches, dropped = targets
        mean, std = _statistics(patches)
        gone = dropped[:, :, None].bool()
        shown = [patches.masked_fill(gone, 0.0), torch.where(gone, predictions.float() * std + mean, patches), patches]
        side = (self.side, self.side)
        rows = [F.fold(one.transpose(1, 2), side, self.patch, stride=self.patch) for one in shown]
        return [(image, "what is seen | filled in | original") for image in to_uint8(torch.cat(rows, dim=3))]


def _statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the mean and the standard deviation of each patch's pixels, [b, patches, 1] each."""
    return patches.mean(2, keepdim=True), (patches.var(2, keepdim=True) + EPSILON).sqrt()


def sincos_positions(grid: int, width: int) -> Tensor:
    """Returns fixed embeddings of the places of a square grid: sines and cosines of the row, then of the column.

    Source: Vaswani et al. 2017, arXiv:1706.03762, for each of the two axes, as in MAE.

    Args:
        grid: Places along a side.
        width: Numbers in an embedding, a multiple of 4.

    Returns:
        [grid**2, width] float32, row by row.
    """
    rates = 10_000.0 ** (-torch.arange(width // 4) / (width // 4))
    angles = torch.arange(grid)[:, None] * rates
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # [grid, width / 2]
    rows, columns = waves[:, None].expand(-1, grid, -1), waves[None].expand(grid, -1, -1)
    return torch.cat([rows, columns], dim=2).flatten(0, 1)
