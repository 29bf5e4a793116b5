"""Trains a model: a generator that yields after every step, and logs, saves and prints nothing."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import ssl_core.optim as optim
from ssl_core.activation_checkpointing import checkpoint_blocks
from ssl_core.blank_batch import blank_batch
from ssl_core.collectives import ddp_ignored
from ssl_core.cuda_graph import CudaStream, GraphedStep, Mode
from ssl_core.data.batch import Batch
from ssl_core.errors import Diverged, UserError
from ssl_core.step_parts import fetched
from ssl_core.task import InputFormat, PretextModel, Task, task_name
from ssl_core.training_step import TrainingStep


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
        cuda_graphs: Whether whole steps are replayed as CUDA graphs, see `ssl_core.cuda_graph`: "auto" where it makes
            them faster, "on" always, which is an error where they cannot be captured.
    """

    steps: int
    seed: int
    optim: optim.Optim
    precision: Literal["fp32", "bf16"] = "fp32"
    grad_accumulation: int = 1
    compile: bool = False
    activation_checkpointing: bool = False
    cuda_graphs: Mode = "off"


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
    model: PretextModel,
    batches: Iterable[Batch],
    format: InputFormat,
    plan: TrainConfig,
    start: dict | None = None,
    warn: Callable[[str], None] = lambda message: None,
) -> Iterator[Step]:
    """Trains a model in place, one optimizer step for each batch.

    Any number of workers gives the gradient of one, see `TrainingStep`.

    Args:
        model: Encoder and task, on the device where it is trained.
        batches: This worker's slices of the global batches, on the same device.
        format: The pixel format that the encoder expects.
        plan: Steps, seed and optimizer.
        start: What `Step.state` returned, to continue from there; the first batch is then that of the step after it.
        warn: Is called with one line if CUDA graphs are asked for and not used.

    Yields:
        What each step has left.

    Raises:
        Diverged: By `Step.state`, if weights are not finite.
        UserError: If CUDA graphs have to be used and cannot.
    """
    world = rank_and_world_size()[1]
    device = next(model.parameters()).device
    graphs = _cuda_graphs(plan, model.task, device, world, warn)
    optimizer, set_lr = optim.build_optimizer(plan.optim, model, plan.steps, capturable=graphs != "off")
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
    compute = TrainingStep(
        model=model,
        ddp=ddp,
        forward=torch.compile(wrapped) if plan.compile else wrapped,
        optimizer=optimizer,
        format=format,
        seed=plan.seed,
        precision=plan.precision,
        grad_accumulation=plan.grad_accumulation,
        clip_grad_norm=plan.optim.clip_grad_norm,
    )
    step = compute
    if graphs != "off":
        cuda = CudaStream(device) if device.type == "cuda" else None
        step = GraphedStep(compute, partial(_tensors, model, optimizer), cuda, graphs, warn)
    for number, batch in enumerate(itertools.chain(begin, fetched(batches)), start=first):
        set_lr(number)
        torch.manual_seed((plan.seed << 32) + number)  # dropout: the same whether or not the run was resumed
        metrics = step(batch, (number + 1) / plan.steps)
        metrics["lr"] = torch.tensor(optim.learning_rate(plan.optim, number, plan.steps))
        yield Step(number + 1, metrics, lambda done=number + 1: _state_dict(model, optimizer, done))


def why_no_graph(plan: TrainConfig, task: Task, device: str, workers: int) -> str | None:
    """Returns why steps of a training cannot be CUDA graphs, as far as that is known before it begins, or None.

    Args:
        plan: How it is trained.
        task: What is trained.
        device: Where it is trained: "cuda" or "cpu".
        workers: How many train together.
    """
    whys = {
        "a CPU has none": device == "cpu",
        "several workers exchange gradients within a step": workers > 1,
        f"--optimizer {plan.optim.optimizer} cannot be captured": plan.optim.optimizer not in optim.CAPTURABLE,
        "--compile makes kernels of its own": plan.compile,
        "--activation-checkpointing reads the state of a random generator": plan.activation_checkpointing,
        f"{task_name(task.config)} does not say that its steps can be captured": not task.capturable,
    }
    return next((why for why, true in whys.items() if true), None)


def _cuda_graphs(
    plan: TrainConfig, task: Task, device: torch.device, workers: int, warn: Callable[[str], None]
) -> Mode:
    """Returns whether steps are run through a `GraphedStep`, after a warning if they cannot be.

    Raises:
        UserError: If they cannot be and have to.
    """
    if plan.cuda_graphs == "off":
        return "off"
    if why_not := why_no_graph(plan, task, device.type, workers):
        if plan.cuda_graphs == "on":
            raise UserError(f"--cuda-graphs on: {why_not}")
        warn(f"no CUDA graph: {why_not}")
        # a CPU runs all of it but the capture
        return "off" if why_no_graph(plan, task, "cuda", workers) else "auto"
    return plan.cuda_graphs


def _tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Returns all tensors that a step leaves for the next one."""
    kept = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    return [*model.parameters(), *model.buffers(), *kept]


def _state_dict(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> dict:
    state = {"step": step, "model": model.state_dict(), "optimizer": optim.state_dict(optimizer)}
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
