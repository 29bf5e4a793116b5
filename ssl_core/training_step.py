"""What a training step computes: a batch's inputs and targets, losses, gradients and new weights."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from kernels.random import RandomBits
from ssl_core.collectives import all_reduce_sum
from ssl_core.data.batch import Batch
from ssl_core.step_parts import part
from ssl_core.task import InputFormat, PretextModel


@dataclass
class TrainingStep:
    """Computes steps of a training. What one leaves is written in place, and nothing waits for the device.

    Attributes:
        model: Encoder and task, which are trained.
        ddp: The model in DistributedDataParallel; None if there is one worker.
        forward: The model, or what wraps it.
        optimizer: Of the model's weights.
        format: The pixel format that the encoder expects.
        seed: Decides every random number of a batch, with the images' ids and epochs.
        precision: Of the forward pass: "bf16" runs it under autocast.
        grad_accumulation: Parts that a worker's slice of a batch is computed in.
        clip_grad_norm: Largest gradient norm; 0 does not clip.
    """

    model: PretextModel
    ddp: DistributedDataParallel | None
    forward: Callable
    optimizer: torch.optim.Optimizer
    format: InputFormat
    seed: int
    precision: str
    grad_accumulation: int
    clip_grad_norm: float

    def __post_init__(self):
        self.count = 0  # of parts, which is the same at every step

    def __call__(self, batch: Batch, progress: float | Tensor) -> dict[str, Tensor]:
        """Trains on a batch; all workers must call it together.

        Weighted losses are summed and divided by the weight of the global batch, so that slices may be uneven.

        Args:
            batch: This worker's slice of the global batch.
            progress: The share of the training's steps that are completed after this one: a number, or 0-d float64 on
                the device.

        Returns:
            Means over the global batch, 0-d tensors on the device: the loss, the task's own metrics, `weight`, how many
            images counted, and `grad_norm`, the L2 norm of all gradients before they are clipped.
        """
        model, device = self.model, batch.ids.device
        self.optimizer.zero_grad(set_to_none=True)
        self.count = self.count or _all_reduce_min(max(1, min(self.grad_accumulation, len(batch.ids))), device)
        pieces = _split_parts(batch, self.count)
        weight = all_reduce_sum(batch.weights.sum()).clamp(min=1e-8)
        totals: dict[str, Tensor] = {}
        outcomes = []
        for i, piece in enumerate(pieces):
            with part("batch"):
                bits = RandomBits(piece.ids, piece.epochs, self.seed)
                inputs, targets = model.task.make_batch(piece, bits, self.format)
            last = i == len(pieces) - 1
            with nullcontext() if last or self.ddp is None else self.ddp.no_sync():
                with part("forward"):
                    with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                        predictions = self.forward(inputs)
                    losses = model.task.loss(predictions, targets)
                with part("backward"):
                    # DDP averages gradients over workers; times world, divided by the global weight, is the mean
                    ((losses * piece.weights).sum() * (_world_size() / weight)).backward()
            outcomes.append((predictions, targets))
            values = {"loss": losses, **model.task.metrics(predictions, targets)}
            for name, value in values.items():
                totals[name] = totals.get(name, 0) + (value.detach().float() * piece.weights).sum()
        with part("optimizer"):
            grad_norm = nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
            if self.clip_grad_norm:
                nn.utils.clip_grads_with_norm_(model.parameters(), self.clip_grad_norm, grad_norm)
            self.optimizer.step()
        with part("task"):
            model.task.after_step(model.encoder, outcomes, progress)
        means = all_reduce_sum(torch.stack(list(totals.values()))) / weight
        return {**dict(zip(totals, means.unbind())), "weight": weight, "grad_norm": grad_norm}


def _world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def _all_reduce_min(parts: int, device: torch.device) -> int:
    """Returns the smallest number of parts that any worker has.

    All workers take as many, since they may exchange something in each part.
    """
    if _world_size() == 1:
        return parts
    fewest = torch.tensor(parts, device=device)
    dist.all_reduce(fewest, dist.ReduceOp.MIN)
    return int(fewest)


def _split_parts(batch: Batch, count: int) -> list[Batch]:
    return [Batch(*fields) for fields in zip(*(t.tensor_split(count) for t in batch))]
