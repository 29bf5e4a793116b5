"""Keeps a memory bank: one feature of each training image, to compare others with.

Source: Wu et al. 2018, arXiv:1805.01978.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.random import randint
from ssl_core.collectives import Replicated, all_gather_with_grad
from ssl_core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class MemoryOptions:
    """Sets the size and the pace of a memory bank, and the loss that compares with it."""

    negatives: int = 512
    """other images that each is compared with; all others at most"""
    temperature: float = 0.07
    """that cosines are divided by"""
    memory_momentum: float = 0.5
    """share of an image's row in the memory that stays when the image is seen again"""
    memory_warmup: int = 0
    """times that an image is compared within its batch, before its row is old enough to trust; 0: never"""

    @property
    def side_by_side(self) -> int:
        """Returns how many images of a batch are needed in one part.

        It is two where images are compared within their batch at first, otherwise one.
        """
        return 2 if self.memory_warmup else 1

    def check(self) -> None:
        """Checks the options.

        Raises:
            UserError: If a value cannot work.
        """
        if self.negatives < 1:
            raise UserError(f"--negatives is {self.negatives}, expected at least 1")
        if not 0 < self.temperature < float("inf"):
            raise UserError(f"--temperature is {self.temperature}, expected above 0")
        if not 0 <= self.memory_momentum < 1:
            raise UserError(f"--memory-momentum is {self.memory_momentum}, expected 0 or more and less than 1")
        if self.memory_warmup < 0:
            raise UserError(f"--memory-warmup is {self.memory_warmup}, expected at least 0")


class MemoryBank(Replicated):
    """Keeps a row of length 1 for each training image, and how often each image was seen.

    Rows begin at random, and an image's own is an epoch old when it is needed, twice as old as the others' on average:
    an encoder that changes fast moves away from it. Hundreds of epochs make up for that, a few do not. So an image may
    at first be compared within its batch, `memory_warmup` times: with its own features instead of its row, and with
    those of the batch's other images instead of their rows.

    Every worker has the whole bank and makes the same updates, so that it is right for any number of workers, also when
    training continues with another number. That takes 4 * width bytes an image: 0.66 GB for ImageNet at width 128.

    Attributes:
        rows: [images, width] float32, a buffer and so a part of every checkpoint.
        visits: [images] int32, a buffer, too: how often each image was seen.
        options: The options.
        negatives: Other images that each is compared with.
    """

    rows: Tensor
    visits: Tensor

    def __init__(self, images: int, width: int, options: MemoryOptions):
        """Draws random rows by torch's generator, as a task's weights are.

        Args:
            images: The number of training images.
            width: Numbers in a row.
            options: The options.

        Raises:
            UserError: If there are fewer than two images, or an option cannot work.
        """
        super().__init__()
        options.check()
        if images < 2:
            raise UserError(
                f"a memory compares an image with others: expected at least 2 training images, got {images}"
            )
        self.options, self.negatives = options, min(options.negatives, images - 1)
        self.register_buffer("rows", F.normalize(torch.randn(images, width), dim=1))
        self.register_buffer("visits", torch.zeros(images, dtype=torch.int32))

    def sample_negatives(self, words: Tensor, ids: Tensor) -> Tensor:
        """Draws other images for each image, uniformly and with replacement.

        Args:
            words: [b, k] int64, random words in [0, 2^32).
            ids: [b] int64, the images.

        Returns:
            [b, k] int64 ids, never the image's own.
        """
        drawn = randint(words, len(self.rows) - 1)
        return drawn + (drawn >= ids[:, None])

    def cosines(self, features: Tensor, ids: Tensor, others: Tensor, weights: Tensor, batch: int) -> Tensor:
        """Returns the cosine similarities between views and what they are compared with.

        In training with `memory_warmup` all workers must call this together.

        Args:
            features: [b, views, width], rows of length 1; the first view is that of the image as it is.
            ids: [b] int64, the images.
            others: [b, k] int64, the images whose rows are negatives.
            weights: [b], 0 for an image that does not count.
            batch: Images in the global batch.

        Returns:
            [b, views, 1 + k (+ n)] float32: first with the image's own row (or features), then with the rows of the
            others, then, with `memory_warmup`, with the features of the n images of the global batch. -inf is not to be
            compared.
        """
        with torch.autocast(features.device.type, enabled=False):  # divided by .07, bfloat16 is off by a tenth
            features = features.float()
            rows = self.rows.index_select(0, others.flatten()).unflatten(0, others.shape)
            near = (rows @ features.transpose(1, 2)).transpose(1, 2)  # on a CPU faster than the other way round
            if not self.options.memory_warmup:
                return torch.cat([features @ self.rows[ids][:, :, None], near], dim=2)
            known, now = self.visits[ids, None] >= self.options.memory_warmup, features[:, 0]
            old = self.visits[others] >= self.options.memory_warmup
            near = near.masked_fill(~(known & old)[:, None], -torch.inf)
            every, all_ids, valid = (
                all_gather_with_grad(t, batch) if self.training else t for t in (now, ids, weights)
            )
            drop = known | (ids[:, None] == all_ids) | (valid == 0)
            in_batch = (features @ every.T).masked_fill(drop[:, None], -torch.inf)
            own = torch.where(known, self.rows[ids], now)
            return torch.cat([features @ own[:, :, None], near, in_batch], dim=2)

    def nce(self, cosines: Tensor) -> Tensor:
        """Returns the loss of each view: noise-contrastive estimation as in PIRL.

        It is -log h(positive) - the sum over negatives of log(1 - h(negative)), where h is the share of
        exp(cosine / temperature) in its sum over the positive and all negatives. Source: equation 5 of PIRL (Misra and
        van der Maaten 2020, arXiv:1912.01991); taken to the letter, its equation 4 counts each negative twice and the
        positive never.

        Args:
            cosines: [b, views, 1 + k (+ n)], what `cosines` returns, the positive first.

        Returns:
            [b, views] float32.
        """
        shares = F.log_softmax(cosines / self.options.temperature, dim=-1)
        mistaken = shares[..., 1:].exp().clamp(max=1 - 1e-6)  # at 1 the loss is infinite
        return -shares[..., 0] - torch.log1p(-mistaken).sum(-1)

    @torch.no_grad()
    def update(self, ids: Tensor, features: Tensor, weights: Tensor, batch: int) -> None:
        """Moves the rows of images towards their features; all workers must call this together.

        An image of weight 0 moves nothing. One that is in the batch twice, as one epoch ends and the next begins,
        counts as it was last.

        Args:
            ids: [b] int64, this worker's images.
            features: [b, width], rows of length 1.
            weights: [b], 0 for an image that does not count.
            batch: Images in the global batch.
        """
        ids, features, weights = (all_gather_with_grad(t, batch) for t in (ids, features.float(), weights))
        same = (ids[:, None] == ids) & (weights > 0)
        last = (same * torch.arange(1, len(ids) + 1, device=ids.device)).amax(1)  # from 1; 0: no such
        old, visits = self.rows[ids], self.visits[ids]
        # a random row that nothing was compared with is none to keep a part of
        memory_momentum = self.options.memory_momentum * ((visits > 0) | (self.options.memory_warmup == 0))[:, None]
        new = F.normalize(memory_momentum * old + (1 - memory_momentum) * features[last - 1], dim=1)
        self.rows[ids] = torch.where(last[:, None] > 0, new, old)  # each writer of a row writes the same
        self.visits[ids] = visits + (last > 0).int()
