"""A memory bank: one feature of each training image, to be compared with (Wu et al. 2018, arXiv:1805.01978)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels.random import randint
from ssl_core.all_gather import all_gather_with_grad
from ssl_core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class MemoryOptions:
    """Options of a memory bank and of the loss that compares with it."""

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
        """Images of a batch that are needed in one place: those that are not compared with rows need each other."""
        return 2 if self.memory_warmup else 1

    def check(self) -> None:
        """Raises UserError for values that cannot work."""
        if self.negatives < 1:
            raise UserError(f"--negatives is {self.negatives}, expected at least 1")
        if not 0 < self.temperature < float("inf"):
            raise UserError(f"--temperature is {self.temperature}, expected above 0")
        if not 0 <= self.memory_momentum < 1:
            raise UserError(f"--memory-momentum is {self.memory_momentum}, expected 0 or more and less than 1")
        if self.memory_warmup < 0:
            raise UserError(f"--memory-warmup is {self.memory_warmup}, expected at least 0")


class MemoryBank(nn.Module):
    """[images, width] float32 rows of length 1, and how often each image was seen: buffers, parts of every checkpoint.

    Rows begin at random, and an image's own is an epoch old when it is needed, twice as old as the others' on average:
    an encoder that moves fast moves away from it. Hundreds of epochs make up for that, a few do not. So an image may at
    first be compared within its batch, `memory_warmup` times: with its own features instead of its row, and with those
    of the batch's other images instead of theirs.

    Every worker has all of it and makes the same updates, so that it is right for any number of workers, also when
    training goes on with another number. That takes 4 * width bytes an image: 0.66 GB for ImageNet at width 128.
    DDP must not send it around, see `ddp_ignored_buffers`.
    """

    rows: Tensor
    visits: Tensor

    def __init__(self, images: int, width: int, options: MemoryOptions):
        """Random rows, by torch's generator, as a task's weights are. Raises UserError for fewer than two images."""
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
        """[b, k] words, [b] ids -> [b, k] int64 ids, uniform over all images but the one itself."""
        drawn = randint(words, len(self.rows) - 1)
        return drawn + (drawn >= ids[:, None])

    def cosines(self, features: Tensor, ids: Tensor, others: Tensor, weights: Tensor, batch: int) -> Tensor:
        """[b, views, width] of length 1, the image as it is first, [b], [b, k], [b] -> [b, views, 1 + k (+ n)] float32.

        Those with the image's own row come first, then those with the rows of the others, then, if there are such
        comparisons, those with the n images of a global batch of `batch`, for which in training all workers must call
        this together; -inf is not to be compared.
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
        """What `cosines` gives, the positive first -> [b, views] losses.

        -log h(positive) - sum over the negatives of log(1 - h(negative)): equation 5 of PIRL (Misra and van der Maaten
        2020, arXiv:1912.01991), where h is the share of exp(cosine / temperature) in its sum over the positive and all
        negatives. (Taken to the letter, equation 4 has each negative count twice and the positive not at all.)
        """
        shares = F.log_softmax(cosines / self.options.temperature, dim=-1)
        mistaken = shares[..., 1:].exp().clamp(max=1 - 1e-6)  # at 1 the loss is infinite
        return -shares[..., 0] - torch.log1p(-mistaken).sum(-1)

    @torch.no_grad()
    def update(self, ids: Tensor, features: Tensor, weights: Tensor, batch: int) -> None:
        """Moves the rows of images `ids` [b] towards their `features` [b, width] of length 1, whichever worker of a
        global batch of `batch` images has them.

        An image of weight 0 moves nothing. One that is there twice, as one epoch ends and the next begins, counts as
        it was last.
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


def ddp_ignored_buffers(module: nn.Module) -> list[str]:
    """The names of those buffers in `module` that every worker keeps up to date by itself."""
    return [
        f"{path}.{name}"
        for path, memory in module.named_modules()
        if isinstance(memory, MemoryBank)
        for name, _ in memory.named_buffers()
    ]
