"""Makes encoders of vision transformers: maps of blocks spread over the depth, and tokens, of which some may drop.

Source: Dosovitskiy et al. 2021, arXiv:2010.11929.
"""

from typing import Any

import torch
from torch import Tensor, nn

MAPS = 4  # blocks whose tokens are given as maps, spread over the depth, the last one among them


class TokenEncoder(nn.Module):
    """Gives a vision transformer of timm the form that an encoder has here, and access to its patch tokens.

    The stages are the patch tokens after each of MAPS blocks as maps [b, width, h / patch_size, w / patch_size], the
    last one normalized by the model's last layer norm; then the mean of the last map's tokens, [b, width, 1, 1]; and if
    the model has a class token, that one, [b, width, 1, 1]. Position embeddings are resampled for images of other
    sides than those that the model was built for.

    Args:
        model: A VisionTransformer or Eva of timm, built with dynamic_img_size and without a classifier.

    Attributes:
        model: The model; names of weights are timm's after "model.".
        patch_size: Side of a patch in pixels; sides of images have to be multiples of it.
        width: Numbers in a token.
        prefix: Tokens before those of the patches: class and register tokens.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model: Any = model
        self.patch_size = int(self.model.patch_embed.feat_ratio())
        self.width = int(self.model.embed_dim)
        self.prefix = int(self.model.num_prefix_tokens)
        self._shown = spread(len(self.model.blocks))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Returns the stages.

        Args:
            images: [b, 3, h, w], whose sides are multiples of the patch's.
        """
        x, rope = self._embed(images)
        maps = []
        for i, block in enumerate(self.model.blocks):
            x = self._run(block, i, x, rope)
            if i in self._shown:
                maps.append(x)
        maps[-1] = self.model.norm(x)
        high, wide = (side // self.patch_size for side in images.shape[2:])
        patches = [one[:, self.prefix :] for one in maps]
        vectors = [self.model.fc_norm(patches[-1].mean(1))]
        if self.model.cls_token is not None:
            vectors.append(maps[-1][:, 0])
        return [
            *(one.transpose(1, 2).unflatten(2, (high, wide)) for one in patches),
            *(one[:, :, None, None] for one in vectors),
        ]

    def tokens(self, images: Tensor, keep: Tensor | None = None, placed: Tensor | None = None) -> Tensor:
        """Returns the tokens after the last block and its layer norm.

        Args:
            images: [b, 3, h, w], whose sides are multiples of the patch's.
            keep: [b, k] int64, numbers of the patches to encode, counted row by row; the others are dropped before
                the first block. None keeps all in their order.
            placed: [b, k] bool, whether each of these patches has its position embedding. None: all have.

        Returns:
            [b, prefix + k, width]: first class and register tokens, then those of the patches in the order of `keep`.
        """
        x, rope = self._embed(images, keep, placed)
        for i, block in enumerate(self.model.blocks):
            x = self._run(block, i, x, rope)
        return self.model.norm(x)

    def _embed(
        self, images: Tensor, keep: Tensor | None = None, placed: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Returns the first block's input, and rotary position embeddings if the model has some."""
        plain = self.model.patch_embed(images)
        embedded = self.model._pos_embed(plain)
        x, rope = embedded if isinstance(embedded, tuple) else (embedded, None)  # Eva's, VisionTransformer's
        if placed is not None and keep is None:
            keep = torch.arange(x.shape[1] - self.prefix, device=x.device).expand(len(x), -1)
        if keep is not None:
            index = keep[:, :, None].expand(-1, -1, x.shape[2])
            patches = x[:, self.prefix :].gather(1, index)
            if placed is not None:
                patches = torch.where(placed[:, :, None], patches, plain.flatten(1, -2).gather(1, index))
            x = torch.cat([x[:, : self.prefix], patches], dim=1)
            rope = None if rope is None else _rotations(rope, keep, placed)
        return self.model.norm_pre(x), rope

    def _run(self, block: nn.Module, number: int, x: Tensor, rope: Tensor | None) -> Tensor:
        if rope is None:
            return block(x)
        return block(x, rope=rope[number] if getattr(self.model, "rope_mixed", False) else rope)


def spread(depth: int) -> list[int]:
    """Returns the numbers, from 0, of at most MAPS of `depth` blocks, evenly spread, the last one among them."""
    return sorted({depth * (i + 1) // MAPS - 1 for i in range(MAPS) if depth * (i + 1) >= MAPS})


def _rotations(rope: Tensor, keep: Tensor, placed: Tensor | None) -> Tensor:
    """Returns the rotary embeddings of some patches of each image, of which those that are not placed do not turn.

    Args:
        rope: [patches, d], the sines and then the cosines; or one of that for each block and head, [depth, heads,
            patches, d].
        keep: [b, k] int64, numbers of patches.
        placed: [b, k] bool, or None.

    Returns:
        [b, 1, k, d], or [depth, b, heads, k, d]: an axis for the images comes in before that of the heads.
    """
    kept = rope[..., keep, :]  # [b, k, d], or [depth, heads, b, k, d]
    if placed is not None:
        half = rope.shape[-1] // 2
        still = torch.cat([rope.new_zeros(half), rope.new_ones(half)])
        kept = torch.where(placed[..., None], kept, still)
    return kept.movedim(-3, -4) if rope.ndim > 2 else kept[:, None]
