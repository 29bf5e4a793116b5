"""The training loop: a generator that yields after every step, and logs, saves and prints nothing."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.flop_counter import FlopCounterMode

import ssl_core.optim as optim
from kernels.random import RandomBits
from ssl_core.data.batch import Batch
from ssl_core.errors import Diverged, UserError
from ssl_core.memory_bank import ddp_ignored_buffers
from ssl_core.task import InputFormat, PretextModel, TaskConfig, task_name


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long and how a PretextModel module is trained."""

    steps: int
    seed: int
    optim: optim.Optim
    precision: Literal["fp32", "bf16"] = "fp32"
    grad_accumulation: int = 1  # parts that a worker's slice is cut into, for memory
    compile: bool = False


class Step(NamedTuple):
    """What has just happened. `metrics` are global over all workers, 0-d, still on the device."""

    number: int  # completed steps
    metrics: dict[str, Tensor]
    state: Callable[[], dict]  # everything that a run continues from, for torch.save


def rank_and_world_size() -> tuple[int, int]:
    """(rank, world size) of this process: (0, 1) outside torch.distributed."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def train(
    model: PretextModel, batches: Iterable[Batch], format: InputFormat, plan: TrainConfig, start: dict | None = None
) -> Iterator[Step]:
    """Trains `model` in place on this worker's slices `batches`, one a step, from the state `start` if given.

    Weighted losses are summed and divided by the *global* weight, so slices may be uneven: W workers give the
    gradient of one. Raises Diverged from `Step.state` when weights are not finite.
    """
    world = rank_and_world_size()[1]
    device = next(model.parameters()).device
    optimizer, set_lr = optim.build_optimizer(plan.optim, model, plan.steps)
    first = 0
    if start:
        first = start["step"]
        model.load_state_dict(start["model"])
        optimizer.load_state_dict(start["optimizer"])
        del start  # or it would stay in memory for as long as the training lasts
    model.train()
    ddp = _wrap_in_ddp(model) if world > 1 else None
    wrapped = model if ddp is None else ddp
    stepper = torch.compile(wrapped) if plan.compile else wrapped
    count = 0
    for number, batch in enumerate(batches, start=first):
        set_lr(number)
        torch.manual_seed((plan.seed << 32) + number)  # dropout: the same whether or not the run was resumed
        optimizer.zero_grad(set_to_none=True)
        count = count or _all_reduce_min(max(1, min(plan.grad_accumulation, len(batch.ids))), device)
        parts = _split_parts(batch, count)
        weight = _all_reduce_sum(batch.weights.sum()).clamp(min=1e-8)
        totals: dict[str, Tensor] = {}
        outcomes = []
        for i, part in enumerate(parts):
            inputs, targets = model.task.make_batch(part, RandomBits(part.ids, part.epochs, plan.seed), format)
            last = i == len(parts) - 1
            with nullcontext() if last or ddp is None else ddp.no_sync():
                with torch.autocast(device.type, torch.bfloat16, enabled=plan.precision == "bf16"):
                    predictions = stepper(inputs)
                losses = model.task.loss(predictions, targets)
                # DDP averages gradients over workers; times world, divided by the global weight, is the mean
                ((losses * part.weights).sum() * (world / weight)).backward()
            outcomes.append((predictions, targets))
            values = {"loss": losses, **model.task.metrics(predictions, targets)}
            for name, value in values.items():
                totals[name] = totals.get(name, 0) + (value.detach().float() * part.weights).sum()
        if plan.optim.clip_grad_norm:
            nn.utils.clip_grad_norm_(model.parameters(), plan.optim.clip_grad_norm)
        optimizer.step()
        for outcome in outcomes:
            model.task.after_step(*outcome)
        means = _all_reduce_sum(torch.stack(list(totals.values()))) / weight
        metrics = dict(zip(totals, means.unbind()))
        metrics["weight"] = weight  # of the images that counted
        metrics["lr"] = torch.tensor(optimizer.param_groups[0]["lr"])
        yield Step(number + 1, metrics, lambda done=number + 1: _state_dict(model, optimizer, done))


def _state_dict(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> dict:
    state = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    finite = torch.stack([torch.isfinite(value).all() for value in state["model"].values()])
    if not finite.all():  # one question to the device, not one for each tensor
        bad = list(state["model"])[finite.tolist().index(False)]
        raise Diverged(f"weights are not finite after step {step}: {bad}")
    return state


def _all_reduce_sum(value: Tensor) -> Tensor:
    value = value.detach().clone()
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(value)
    return value


def _wrap_in_ddp(model: nn.Module) -> DistributedDataParallel:
    """`model` in DDP, which would send all buffers from the first worker at each step, and with them whole memories."""
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, ddp_ignored_buffers(model))
    return DistributedDataParallel(model)


def _all_reduce_min(parts: int, device: torch.device) -> int:
    """The fewest `parts` of any worker: each part may have the workers exchange something, so all take as many."""
    if rank_and_world_size()[1] == 1:
        return parts
    fewest = torch.tensor(parts, device=device)
    dist.all_reduce(fewest, dist.ReduceOp.MIN)
    return int(fewest)


def _split_parts(batch: Batch, count: int) -> list[Batch]:
    return [Batch(*fields) for fields in zip(*(t.tensor_split(count) for t in batch))]


def encoder_macs(model: PretextModel, size: int) -> int:
    """Multiply-accumulates of the encoder, forward and backward, for one image with all the views the task makes.

    This is the budget that tasks are made equal in. The backward pass of a convolution costs two forwards.
    """
    count = 2
    inputs = _blank_inputs(model, size, count)
    counter = FlopCounterMode(display=False)
    flops = 0

    def encoder(x: Tensor) -> list[Tensor]:
        nonlocal flops
        with counter:
            maps = model.encoder(x)
        flops += counter.get_total_flops()
        return maps

    was = model.training
    model.eval()
    with torch.no_grad():
        model.task(encoder, inputs)
    model.train(was)
    return 3 * flops // 2 // count


def _blank_inputs(model: PretextModel, size: int, count: int):
    """The inputs that the task makes of `count` black images."""
    images = torch.zeros(count, size, size, 3, dtype=torch.uint8)
    ids = torch.arange(count)
    batch = Batch(images, ids, torch.zeros_like(ids), torch.ones(count), torch.zeros_like(ids))
    device = next(model.parameters()).device
    batch = Batch(*(t.to(device) for t in batch))
    return model.task.make_batch(batch, RandomBits(batch.ids, batch.epochs, 0), InputFormat((0.0,) * 3, (1.0,) * 3))[0]


def check_parts(config: TaskConfig, grad_accumulation: int, worlds: Iterable[int], images: int) -> int:
    """The fewest images that a worker would compute with at once, if as many workers as any of `worlds` shared the
    batches of a task with the options `config`, each in `grad_accumulation` parts, of `images` training images.

    Raises UserError if some worker would get no image, or if a task that compares the images of a part would always
    find fewer than it needs. (A part of two may hold one image twice, as one epoch ends and the next begins.)
    """
    name, batch, needed, fewest = task_name(config), config.batch, config.side_by_side, config.batch
    if images < needed:
        raise UserError(f"{name} compares training images with each other: expected at least {needed}, got {images}")
    for world in worlds:
        if batch < world:
            raise UserError(f"a global batch of {batch} images cannot be shared by {world} workers")
        alone, together = smallest_part(batch, grad_accumulation, world)
        if together < needed:
            on = f" on {world} workers" if world > 1 else ""
            raise UserError(
                f"{name} compares the images of a part of a batch with each other: expected at least {needed}, and "
                f"--batch {batch} with --grad-accumulation {grad_accumulation}{on} leaves {together}: give a larger "
                "--batch" + (" or a smaller --grad-accumulation" if grad_accumulation > 1 else "")
            )
        fewest = min(fewest, alone)
    return fewest


def smallest_part(batch: int, grad_accumulation: int, world: int) -> tuple[int, int]:
    """Images in the smallest part of a global batch that `train` makes: a worker's, and all workers' together."""
    size, larger = divmod(batch, world)  # so many workers have one image more
    parts = max(1, min(grad_accumulation, size))
    return size // parts, (world - larger) * (size // parts) + larger * ((size + 1) // parts)


def check_one_image(model: PretextModel, size: int) -> None:
    """Raises UserError if batch norm would get one value for a channel, of which it can take no variance, when a worker
    computes with one image of side `size`. Moves the statistics of batch norm."""
    inputs = _blank_inputs(model, size, 1)
    try:
        with torch.no_grad():
            model.train()(inputs)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UserError(
            f"{task_name(model.task.config)}: a part of a batch may be one image, and batch norm needs more than the "
            "one cell that its last map has: give a larger --batch or --size, a smaller --grad-accumulation or fewer "
            "--workers"
        ) from error
