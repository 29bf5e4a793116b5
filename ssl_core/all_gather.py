"""The rows of all workers on every worker, for losses and memories that look at the whole global batch."""

import torch
import torch.distributed as dist
from torch import Tensor


def all_gather_with_grad(rows: Tensor, batch: int) -> Tensor:
    """The `rows` [b, ...] of all workers, in the order of the global batch.

    Workers' shares are uneven, so each is filled up with zeros to the largest that one of a global batch of `batch`
    images can be, which all of them know without asking, and so without waiting for their devices: zeros among
    gathered weights tell what was filled up. Gradients sum over the workers and reach the one that a row came from.
    Raises ValueError for more rows than a worker's share of `batch`.
    """
    if not (dist.is_initialized() and dist.get_world_size() > 1):
        return rows
    most = -(-batch // dist.get_world_size())
    if len(rows) > most:
        raise ValueError(f"{len(rows)} rows: expected at most {most}, a worker's share of a batch of {batch}")
    return _Gather.apply(rows, most)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: Tensor, most: int) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.count, ctx.most = len(rows), most
        filled = rows.new_zeros(most, *rows.shape[1:])
        filled[: len(rows)] = rows
        out = rows.new_empty(most * dist.get_world_size(), *rows.shape[1:])
        dist.all_gather_into_tensor(out, filled)
        return out

    @staticmethod
    def backward(ctx, gradient: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        first = dist.get_rank() * ctx.most
        return total[first : first + ctx.count], None
