"""Gathers rows of all workers on every worker, for losses and memory banks that use the whole global batch."""

import torch
import torch.distributed as dist
from torch import Tensor


def all_gather_with_grad(rows: Tensor, batch: int) -> Tensor:
    """Returns the rows of all workers, in the order of the global batch; gradients flow back through it.

    Workers' shares may be uneven, so each is filled up with zeros to the largest share of a global batch of `batch`
    images, which all workers know without asking each other and so without waiting for their devices; zeros among
    gathered weights tell which rows were filled up. In the backward pass gradients are summed over the workers and
    returned to the worker that a row came from.

    Args:
        rows: [b, ...], this worker's, on its device.
        batch: Images in the global batch.

    Returns:
        [ceil(batch / workers) * workers, ...], or `rows` itself if there is one worker.

    Raises:
        ValueError: If there are more rows than a worker's share of `batch`.
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
