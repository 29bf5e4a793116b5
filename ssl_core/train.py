"""Trains a model: a generator that yields after every step, and logs, saves and prints nothing."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import ssl_core.optim as optim
from kernels.random import RandomBits
from ssl_core.activation_checkpointing import checkpoint_blocks
from ssl_core.blank_batch import blank_batch
from ssl_core.collectives import all_reduce_sum, ddp_ignored
from ssl_core.data.batch import Batch
from ssl_core.errors import Diverged
from ssl_core.step_parts import fetched, part
from ssl_core.task import InputFormat, PretextModel


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Sets how long and how a model is trained.

    Attributes:
        steps: Optimizer steps of the whole training, those before a restart included.
        seed: Decides every random number of the training, with the images' ids and epochs.
        optim: Optimizer and schedule.
        precision: Of the forward pass: "bf16" runs it under autocast.
        grad_accumulation: Parts that a worker's slice of a batch is computed in, to save memory.
        compile: Whether the model runs through torch.compile.
        activation_checkpointing: Whether activations of the encoder's blocks are computed again instead of kept, which
            changes no bit of the result; not together with `compile`.
    """

    steps: int
    seed: int
    optim: optim.Optim
    precision: Literal["fp32", "bf16"] = "fp32"
    grad_accumulation: int = 1
    compile: bool = False
    activation_checkpointing: bool = False


class Step(NamedTuple):
    """Holds what a training step has left.

    Attributes:
        number: How many steps are completed.
        metrics: Means over the whole global batch, 0-d tensors that are still on the device: the loss, the task's own
            metrics, `weight`, how many images counted, `grad_norm`, the L2 norm of all gradients before they are
            clipped, and `lr`, on the CPU.
        state: Returns all that a training continues from, for torch.save: "step", "model" and "optimizer". Raises
            Diverged if weights are not finite.
    """

    number: int
    metrics: dict[str, Tensor]
    state: Callable[[], dict]


def rank_and_world_size() -> tuple[int, int]:
    """Returns the rank of this process and the number of workers: (0, 1) outside torch.distributed."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def train(
    model: PretextModel, batches: Iterable[Batch], format: InputFormat, plan: TrainConfig, start: dict | None = None
) -> Iterator[Step]:
    """Trains a model in place, one optimizer step for each batch.

    Weighted losses are summed and divided by the weight of the global batch, so that slices may be uneven: any number
    of workers gives the gradient of one.

    Args:
        model: Encoder and task, on the device where it is trained.
        batches: This worker's slices of the global batches, on the same device.
        format: The pixel format that the encoder expects.
        plan: Steps, seed and optimizer.
        start: What `Step.state` returned, to continue from there; the first batch is then that of the step after it.

    Yields:
        What each step has left.

    Raises:
        Diverged: By `Step.state`, if weights are not finite.
    """
    world = rank_and_world_size()[1]
    device = next(model.parameters()).device
    optimizer, set_lr = optim.build_optimizer(plan.optim, model, plan.steps)
    first = 0
    if start:
        first = start["step"]
        model.load_state_dict(start["model"])
        optim.load_state(optimizer, start["optimizer"])
        del start  # or it would stay in memory for as long as the training lasts
    model.train()
    if plan.activation_checkpointing:
        checkpoint_blocks(model.encoder)
    batches = iter(batches)
    begin = list(itertools.islice(batches, 1))
    ddp = _wrap_in_ddp(model, begin[0].images.shape[1]) if world > 1 and begin else None
    wrapped = model if ddp is None else ddp
    stepper = torch.compile(wrapped) if plan.compile else wrapped
    count = 0
    for number, batch in enumerate(itertools.chain(begin, fetched(batches)), start=first):
        set_lr(number)
        torch.manual_seed((plan.seed << 32) + number)  # dropout: the same whether or not the run was resumed
        optimizer.zero_grad(set_to_none=True)
        count = count or _all_reduce_min(max(1, min(plan.grad_accumulation, len(batch.ids))), device)
        pieces = _split_parts(batch, count)
        weight = all_reduce_sum(batch.weights.sum()).clamp(min=1e-8)
        totals: dict[str, Tensor] = {}
        outcomes = []
        for i, piece in enumerate(pieces):
            with part("batch"):
                inputs, targets = model.task.make_batch(piece, RandomBits(piece.ids, piece.epochs, plan.seed), format)
            last = i == len(pieces) - 1
            with nullcontext() if last or ddp is None else ddp.no_sync():
                with part("forward"):
                    with torch.autocast(device.type, torch.bfloat16, enabled=plan.precision == "bf16"):
                        predictions = stepper(inputs)
                    losses = model.task.loss(predictions, targets)
                with part("backward"):
                    # DDP averages gradients over workers; times world, divided by the global weight, is the mean
                    ((losses * piece.weights).sum() * (world / weight)).backward()
            outcomes.append((predictions, targets))
            values = {"loss": losses, **model.task.metrics(predictions, targets)}
            for name, value in values.items():
                totals[name] = totals.get(name, 0) + (value.detach().float() * piece.weights).sum()
        with part("optimizer"):
            grad_norm = nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
            if plan.optim.clip_grad_norm:
                nn.utils.clip_grads_with_norm_(model.parameters(), plan.optim.clip_grad_norm, grad_norm)
            optimizer.step()
        with part("task"):
            model.task.after_step(model.encoder, outcomes, (number + 1) / plan.steps)
        means = all_reduce_sum(torch.stack(list(totals.values()))) / weight
        metrics = dict(zip(totals, means.unbind()))
        metrics["weight"] = weight  # of the images that counted
        metrics["grad_norm"] = grad_norm
        metrics["lr"] = torch.tensor(optimizer.param_groups[0]["lr"])
        yield Step(number + 1, metrics, lambda done=number + 1: _state_dict(model, optimizer, done))


def _state_dict(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> dict:
    state = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    finite = torch.stack([torch.isfinite(value).all() for value in state["model"].values()])
    if not finite.all():  # one question to the device, not one for each tensor
        bad = list(state["model"])[finite.tolist().index(False)]
        raise Diverged(f"weights are not finite after step {step}: {bad}")
    return state


def _wrap_in_ddp(model: PretextModel, size: int) -> DistributedDataParallel:
    """Returns the model in DistributedDataParallel, which leaves out what workers keep up to date themselves.

    It would otherwise send all buffers from the first worker at each step, and with them whole memory banks. A task may
    leave a part of an encoder unused, such as what follows the last map, which has to be said.
    """
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, ddp_ignored(model))
    return DistributedDataParallel(model, find_unused_parameters=_has_unused(model, size))


def _has_unused(model: PretextModel, size: int) -> bool:
    """Returns whether a step leaves weights without a gradient. It changes nothing."""
    inputs, targets = blank_batch(model, size, 2)
    model.eval()  # in which nothing is exchanged with other workers, and batch norm keeps its statistics
    model.task.loss(model(inputs), targets).sum().backward()
    unused = any(p.grad is None for p in model.parameters() if p.requires_grad)
    model.zero_grad(set_to_none=True)
    model.train()
    return unused


def _all_reduce_min(parts: int, device: torch.device) -> int:
    """Returns the smallest number of parts that any worker has.

    All workers take as many, since they may exchange something in each part.
    """
    if rank_and_world_size()[1] == 1:
        return parts
    fewest = torch.tensor(parts, device=device)
    dist.all_reduce(fewest, dist.ReduceOp.MIN)
    return int(fewest)


def _split_parts(batch: Batch, count: int) -> list[Batch]:
    return [Batch(*fields) for fields in zip(*(t.tensor_split(count) for t in batch))]
