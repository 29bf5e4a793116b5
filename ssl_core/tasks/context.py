"""Context encoder: fill in what was erased (Pathak et al. 2016, arXiv:1604.07379), by its masked L2 loss."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from kernels.erase import erase
from kernels.random import randint
from ssl_core.errors import UserError
from ssl_core.optim import Optim
from ssl_core.task import Task, TaskConfig, cover, crop_corners, crop_side, to_uint8

CELLS = 6  # a random region is where smooth noise of CELLS x CELLS knots is low
LEVEL = 90  # of 256: erases about a quarter of an image, see tests/ssl_core/test_tasks.py


class Context(Task):
    """Predicts the erased pixels of an image, which were replaced by the mean, with a small decoder.

    Regions of arbitrary shape teach better features than a fixed hole, whose border the network learns
    (section 3.3 of the paper).
    """

    capturable = True

    @dataclass(frozen=True, kw_only=True)
    class Config(TaskConfig):
        """Fill in what was erased."""

        mask: Literal["region", "blocks", "center"] = "region"
        """region: a random region of arbitrary shape; blocks: random rectangles; center: the central quarter"""
        blocks: int = 2
        """rectangles that `blocks` erases"""
        crop: float = 1.0
        """side of the random window that is shown, as a fraction of the image's"""
        hidden_dim: int = 128
        """width of the decoder"""
        optim: Optim = Optim(optimizer="adamw", lr=5e-3, weight_decay=0.05)

    config: Config

    def __init__(self, config: Config, encoder, data):
        super().__init__(config, encoder, data)
        self.size = crop_side(config.crop, data.size, encoder.patch_size)
        if self.size < 8:
            raise UserError(f"context: the window is {self.size} px, expected at least 8")
        if config.blocks < 1:
            raise UserError(f"context: blocks is {config.blocks}, expected at least 1")
        self.stage = encoder.last_map
        self.stride = stride = encoder.strides[self.stage]
        self.decoder = nn.Sequential(
            nn.Conv2d(encoder.widths[self.stage], config.hidden_dim, 3, padding=1, bias=False),
            nn.BatchNorm2d(config.hidden_dim),
            nn.ReLU(inplace=True),
            nn.Conv2d(config.hidden_dim, 3 * stride**2, 1),
            nn.PixelShuffle(stride),
        )

    def make_batch(self, batch, bits, format):
        b, device = len(batch.ids), batch.images.device
        blocks = {"region": 0, "blocks": self.config.blocks, "center": 1}[self.config.mask]
        knots = CELLS if self.config.mask == "region" else 0
        words = bits.draw("context", 3 + 4 * blocks + knots**2)
        offsets, flips = crop_corners(words[:, 1:3], batch.images, self.size), randint(words[:, 0], 2)
        side = self.size
        if self.config.mask == "center":
            boxes = torch.full((b, 1, 4), side // 4, device=device)
            boxes[..., 2:] = side // 2
        else:  # sides between a quarter and just under half of the window
            box = words[:, 3 : 3 + 4 * blocks].view(b, blocks, 4)
            extent = side // 4 + randint(box[..., :2], max(1, side // 2 - side // 4 - 1))
            boxes = torch.cat([randint(box[..., 2:], side - extent + 1), extent], dim=2)
        field = randint(words[:, 3 + 4 * blocks :], 256).view(b, knots, knots)
        levels = torch.full((b,), LEVEL, device=device)
        masked, whole, erased = erase(batch.images, flips, offsets, boxes, field, levels, size=side, **format.options())
        return masked, (whole, erased)

    def forward(self, encoder, inputs):
        maps = encoder(inputs)
        seen = maps[self.stage]
        if maps[-1] is not seen:  # a class token, which would learn nothing otherwise
            seen = seen + maps[-1]
        return self.decoder(cover(seen, self.stride, self.size))[:, :, : inputs.shape[2], : inputs.shape[3]]

    def loss(self, predictions, targets):
        whole, erased = targets
        errors = (predictions.float() - whole.float()).square() * erased
        return errors.sum((1, 2, 3)) / (erased.sum((1, 2, 3)) * whole.shape[1]).clamp(min=1)

    def visualize(self, inputs, predictions, targets):
        whole, erased = targets
        filled = torch.where(erased.bool(), predictions.to(whole.dtype), whole)
        rows = torch.cat([inputs, filled, whole], dim=3)
        return [(image, "erased | filled in | original") for image in to_uint8(rows)]
