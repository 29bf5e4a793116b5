"""Lets an encoder take pixels as they are, which it normalizes itself."""

import torch
from torch import Tensor, nn

from ssl_core.encoders.pretrained import Pretrained, load_pretrained


class PixelEncoder(nn.Module):
    """Computes an encoder's maps from pixels: [b, 3, h, w] of 0..255, uint8 or float32, to the stages' maps, float32.

    Args:
        one: Says how pixels are standardized.
        encoder: The encoder.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, one: Pretrained, encoder: nn.Module):
        super().__init__()
        self.encoder, self.per_image = encoder, one.normalization == "image"
        self.register_buffer("mean", torch.tensor(one.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(one.std).view(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        x = pixels.to(torch.float32)
        mean, std = self.mean, self.std
        if self.per_image:  # as kernels/shuffle_tiles/ standardizes: a flat channel is not blown up
            mean = x.mean((2, 3), keepdim=True)
            std = (x - mean).square().mean((2, 3), keepdim=True).sqrt().clamp(min=1)
        return tuple(self.encoder((x - mean) / std))


def load_pixel_encoder(spec: str) -> PixelEncoder:
    """Loads the encoder that a command-line option names, in evaluation mode.

    Args:
        spec: The option's value, as `load_pretrained` takes it.

    Raises:
        UserError: If there is no such encoder, or its file is damaged.
    """
    one = load_pretrained(spec)
    encoder = PixelEncoder(one, one.network())
    return encoder.eval()
