"""Gathers and sums over workers, for what uses the whole global batch, and marks what all of them keep equal."""

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Replicated(nn.Module):
    """A module whose buffers every worker keeps equal by itself, so that DistributedDataParallel need not send them."""


def ddp_ignored(module: nn.Module) -> list[str]:
    """Returns the names of the buffers that every worker keeps up to date by itself.

    Args:
        module: The model; its modules of the class `Replicated` are found.
    """
    return [
        f"{path}.{name}"
        for path, one in module.named_modules()
        if isinstance(one, Replicated)
        for name, _ in one.named_buffers()
    ]


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


def all_reduce_sum(value: Tensor) -> Tensor:
    """Returns the sum of a value over all workers, without gradients.

    Args:
        value: Of the same shape on every worker; it stays as it is.
    """
    value = value.detach().clone()
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(value)
    return value


def all_reduce_sum_with_grad(value: Tensor) -> Tensor:
    """Returns the sum of a value over all workers; gradients flow back to each of them, summed over the workers.

    Args:
        value: Of the same shape on every worker; it stays as it is.
    """
    if not (dist.is_initialized() and dist.get_world_size() > 1):
        return value
    return _Sum.apply(value)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        return all_reduce_sum(value)

    @staticmethod
    def backward(ctx, gradient: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        return all_reduce_sum(gradient.contiguous())
