"""Trainings from image files to updated weights, one file each: Tilespin's, others, and a ceiling.

A module has `pipelines(case)`: by name, an iterator over the losses of training steps, 0-d tensors on the device; and
`context`, which its steps run in, if they need one. All of them train the same encoder and head with the same optimizer
on batches of the same size; what differs is how a batch comes about, and who wrote the loop. A module whose package is
not installed is left out.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

import ssl_core.encoders.build as encoders
from ssl_core.data.dataset import Source, open_source
from ssl_core.optim import Optim, build_optimizer
from ssl_core.task import DataInfo, InputFormat, PretextModel, tasks

STEPS = 5000  # that the learning rate's schedule is made for: more than are measured
WARMUP = 0.002  # share of them in which the learning rate rises


@dataclass(frozen=True, kw_only=True)
class Case:
    """One training: `packed` is what `tilespin pack` made of the data, None for data that is an array already."""

    task: str
    encoder: str
    data: str
    packed: Path | None
    size: int
    batch: int
    device: torch.device
    precision: str  # "fp32", or "bf16" under autocast
    compile: bool
    cores: int

    @cached_property
    def source(self) -> Source:
        return open_source(self.data, self.size)

    @property
    def format(self) -> InputFormat:
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        return InputFormat(self.source.mean, self.source.std, dtype)

    @property
    def optim(self) -> Optim:
        return replace(tasks()[self.task].Config().optim, warmup=WARMUP)

    def model(self) -> PretextModel:
        """A new one, the same each time."""
        kind = tasks()[self.task]
        encoder = encoders.build(self.encoder, self.size, seed=0)
        info = encoders.describe(encoder, self.encoder, self.size)
        data = DataInfo(self.size, len(self.source.classes), len(self.source.train))
        torch.manual_seed(0)
        model = PretextModel(encoder, kind(kind.Config(batch=self.batch), info, data))
        return model.to(self.device, memory_format=torch.channels_last)


def task_loss(model: PretextModel, predict: Callable, inputs, targets) -> Tensor:
    """The mean loss of a batch, by the task's own head and loss."""
    return model.task.loss(predict(inputs), targets).mean()


def plain_loop(
    case: Case, model: PretextModel, batches: Iterator[tuple], loss: Callable = task_loss
) -> Iterator[Tensor]:
    """The training loop that a person would write, over (inputs, targets) as the task's head and loss take them."""
    optimizer, set_lr = build_optimizer(case.optim, model, STEPS)
    predict = torch.compile(model) if case.compile else model
    model.train()
    for number, (inputs, targets) in enumerate(batches):
        set_lr(number)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(case.device.type, torch.bfloat16, enabled=case.precision == "bf16"):
            value = loss(model, predict, inputs, targets)
        value.backward()
        optimizer.step()
        yield value.detach()
