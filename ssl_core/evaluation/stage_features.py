"""Computes the features of one stage of an encoder, from pixels, for other programs."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import ssl_core.encoders.build as encoders
from ssl_core.encoders.tokens import TokenEncoder
from ssl_core.errors import Diverged, UserError

Pool = Literal["mean", "2x2", "map"]
CELLS: dict[str, int] = {"mean": 1, "2x2": 2}  # along each side that a map is averaged to
LAST, CLASS_TOKEN = "last", "cls"


def choose_stage(network: nn.Module, name: str, size: int, stage: str) -> int:
    """Returns the number of a stage, counted from 1, shallow to deep.

    Args:
        network: The encoder, which maps [b, 3, h, w] to the list of its stages' maps.
        name: Its name, for messages.
        size: The images' side in pixels.
        stage: A number; "last" for the deepest stage that is a map, which for a vision transformer is that of all
            patches' tokens after its last block; or "cls" for a vision transformer's class token.

    Raises:
        UserError: If there is no such stage, or the encoder does not take images of this size.
    """
    strides = encoders.describe(network, name, size).strides
    if stage == LAST:
        return max((i for i, stride in enumerate(strides, start=1) if stride), default=len(strides))
    if stage == CLASS_TOKEN:
        if not isinstance(network, TokenEncoder) or network.model.cls_token is None:
            raise UserError(f"--stage cls: {name} has no class token: take last, or 1 to {len(strides)}")
        return len(strides)
    if not (stage.isdecimal() and 1 <= int(stage) <= len(strides)):
        raise UserError(f"--stage {stage}: {name} has the stages 1 to {len(strides)}; expected one, last, or cls")
    return int(stage)


class StageFeatures(nn.Module):
    """Computes the features of one stage: its map averaged to few cells, or whole, and flattened.

    Args:
        encoder: Maps pixels, [b, 3, h, w] uint8, to the stages' maps.
        stage: The number of the stage, from 1.
        pool: "mean" of all cells, "2x2" cells, or the whole "map". A map of fewer cells stays as it is.
    """

    def __init__(self, encoder: nn.Module, stage: int, pool: str):
        super().__init__()
        self.encoder, self.stage, self.pool = encoder, stage, pool

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """Returns the features, [b, d] float32: channel by channel, in each row by row.

        Args:
            images: [b, h, w, 3] uint8, on the encoder's device.

        Raises:
            Diverged: If they are not finite.
        """
        found = self.encoder(images.permute(0, 3, 1, 2))[self.stage - 1]
        if self.pool in CELLS:
            found = F.adaptive_avg_pool2d(found, min(CELLS[self.pool], *found.shape[2:]))
        if not found.sum().isfinite():
            raise Diverged("the encoder's features are not finite: its weights have diverged, or are damaged")
        return found.flatten(1)
