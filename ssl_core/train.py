"""Trains a model: a generator that yields after every step, and logs, saves and prints nothing."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.flop_counter import FlopCounterMode

import ssl_core.optim as optim
from kernels.random import RandomBits
from ssl_core.collectives import all_reduce_sum, ddp_ignored
from ssl_core.data.batch import Batch
from ssl_core.errors import Diverged, UserError
from ssl_core.task import InputFormat, PretextModel, TaskConfig, task_name
from ssl_core.teacher import Teacher


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
    """

    steps: int
    seed: int
    optim: optim.Optim
    precision: Literal["fp32", "bf16"] = "fp32"
    grad_accumulation: int = 1
    compile: bool = False


class Step(NamedTuple):
    """Holds what a training step has left.

    Attributes:
        number: How many steps are completed.
        metrics: Means over the whole global batch, 0-d tensors that are still on the device: the loss, the task's own
            metrics, `weight`, how many images counted, and `lr`, on the CPU.
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
        optimizer.load_state_dict(start["optimizer"])
        del start  # or it would stay in memory for as long as the training lasts
    model.train()
    batches = iter(batches)
    begin = list(itertools.islice(batches, 1))
    ddp = _wrap_in_ddp(model, begin[0].images.shape[1]) if world > 1 and begin else None
    wrapped = model if ddp is None else ddp
    stepper = torch.compile(wrapped) if plan.compile else wrapped
    count = 0
    for number, batch in enumerate(itertools.chain(begin, batches), start=first):
        set_lr(number)
        torch.manual_seed((plan.seed << 32) + number)  # dropout: the same whether or not the run was resumed
        optimizer.zero_grad(set_to_none=True)
        count = count or _all_reduce_min(max(1, min(plan.grad_accumulation, len(batch.ids))), device)
        parts = _split_parts(batch, count)
        weight = all_reduce_sum(batch.weights.sum()).clamp(min=1e-8)
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
        model.task.after_step(model.encoder, outcomes, (number + 1) / plan.steps)
        means = all_reduce_sum(torch.stack(list(totals.values()))) / weight
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


def _wrap_in_ddp(model: PretextModel, size: int) -> DistributedDataParallel:
    """Returns the model in DistributedDataParallel, which leaves out what workers keep up to date themselves.

    It would otherwise send all buffers from the first worker at each step, and with them whole memory banks. A task may
    leave a part of an encoder unused, such as what follows the last map, which has to be said.
    """
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, ddp_ignored(model))
    return DistributedDataParallel(model, find_unused_parameters=_has_unused(model, size))


def _has_unused(model: PretextModel, size: int) -> bool:
    """Returns whether a step leaves weights without a gradient. It changes nothing."""
    inputs, targets = _blank_batch(model, size, 2)
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


def encoder_macs(model: PretextModel, size: int) -> int:
    """Counts an encoder's multiply-accumulates, forward and backward, for one image with all views that its task makes.

    This is the budget in which tasks are made equal. A backward pass is counted as two forward passes; a teacher has
    none. Tokens that are dropped before the encoder cost nothing.

    Args:
        model: Encoder and task; its mode, training or evaluation, is restored.
        size: The images' side in pixels.

    Raises:
        UserError: If the encoder cannot take what the task shows it, such as images of other sides.
    """
    count = 2
    inputs = _blank_batch(model, size, count)[0]
    encoder = _Counted(model.encoder)
    teachers = [(one, one.encoder) for one in model.task.modules() if isinstance(one, Teacher)]
    counted = {teacher: _Counted(own) for teacher, own in teachers}
    was = model.training
    model.eval()
    trained = [p for p in model.parameters() if p.requires_grad]
    try:
        with torch.no_grad():
            _check_views(model, inputs, size)
            for parameter in trained:  # torch's counter hooks what needs a gradient, also where none is computed
                parameter.requires_grad_(False)
            for teacher, _ in teachers:
                teacher.encoder = counted[teacher]
            model.task(encoder, inputs)
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        for teacher, own in teachers:
            teacher.encoder = own
        model.train(was)
    return (3 * encoder.flops + sum(one.flops for one in counted.values())) // 2 // count


def _check_views(model: PretextModel, inputs, size: int) -> None:
    try:
        model(inputs)
    except (AssertionError, RuntimeError) as error:  # an encoder that is built for one size alone
        raise UserError(
            f"{task_name(model.task.config)} on images of {size} px: the encoder cannot take what the task shows it, "
            f"choose another one: {str(error).splitlines()[0]}"
        ) from error


class _Counted(nn.Module):
    """Counts the floating-point operations of an encoder."""

    def __init__(self, encoder: Any):
        super().__init__()
        self.encoder: Any = encoder
        self.flops = 0

    def forward(self, images: Tensor) -> list[Tensor]:
        return self._count(self.encoder, images)

    def tokens(self, images: Tensor, keep: Tensor | None = None, placed: Tensor | None = None) -> Tensor:
        return self._count(self.encoder.tokens, images, keep, placed)

    def _count(self, function: Callable, *given):
        counter = FlopCounterMode(display=False)
        with counter:
            result = function(*given)
        self.flops += counter.get_total_flops()
        return result


def _blank_batch(model: PretextModel, size: int, count: int) -> tuple:
    """Returns the inputs and targets that the task makes of `count` black images."""
    images = torch.zeros(count, size, size, 3, dtype=torch.uint8)
    ids = torch.arange(count)
    batch = Batch(images, ids, torch.zeros_like(ids), torch.ones(count), torch.zeros_like(ids))
    device = next(model.parameters()).device
    batch = Batch(*(t.to(device) for t in batch))
    return model.task.make_batch(batch, RandomBits(batch.ids, batch.epochs, 0), InputFormat((0.0,) * 3, (1.0,) * 3))


def check_parts(config: TaskConfig, grad_accumulation: int, worlds: Iterable[int], images: int) -> int:
    """Checks that every part of a batch has enough images for the task, whatever the number of workers.

    A part of two may still hold one image twice, as one epoch ends and the next begins.

    Args:
        config: The task's options, with the size of a global batch.
        grad_accumulation: Parts that a worker's slice is computed in.
        worlds: Numbers of workers that may share the batches.
        images: The number of training images.

    Returns:
        The fewest images that a worker would compute with at once.

    Raises:
        UserError: If a worker would get no image, or a task that compares the images of a part with each other would
            find fewer than it needs.
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
    """Returns the number of images in the smallest part of a global batch that `train` makes.

    Args:
        batch: Images in a global batch.
        grad_accumulation: Parts that a worker's slice is computed in.
        world: Workers that share the batch.

    Returns:
        One worker's images in such a part, and those of all workers together.
    """
    size, larger = divmod(batch, world)  # so many workers have one image more
    parts = max(1, min(grad_accumulation, size))
    return size // parts, (world - larger) * (size // parts) + larger * ((size + 1) // parts)


def check_one_image(model: PretextModel, size: int) -> None:
    """Checks that a model can be trained on parts of a single image.

    Batch norm cannot if its last map has one cell: a single value for a channel has no variance. The check changes the
    statistics of batch norm.

    Args:
        model: Encoder and task; it is left in training mode.
        size: The images' side in pixels.

    Raises:
        UserError: If batch norm would get a single value for a channel.
    """
    inputs = _blank_batch(model, size, 1)[0]
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
