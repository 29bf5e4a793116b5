"""Optimisers and schedules: timm's, chosen by a small config."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import nn
from torch.optim import Optimizer

from ssl_core.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Optim:
    """Optimiser and learning-rate schedule: linear warm-up, then a cosine to zero."""

    optimizer: Literal["sgd", "adamw", "lars"] = "sgd"
    """sgd is Nesterov's"""
    lr: float = 0.1
    """peak learning rate, for the global batch as it is"""
    weight_decay: float = 1e-4
    """not applied to biases and normalisation layers"""
    momentum: float = 0.9
    """of sgd and lars"""
    warmup: float = 0.2
    """fraction of the steps over which the learning rate rises"""
    clip: float = 0.0
    """largest gradient norm; 0 does not clip"""

    def check(self) -> None:
        """Raises BadInput for values that cannot train anything."""
        for name, low, high in (("lr", 0, math.inf), ("weight_decay", 0, math.inf), ("momentum", 0, 1),
                                ("warmup", 0, 1), ("clip", 0, math.inf)):  # fmt: skip
            value = getattr(self, name)
            if not low <= value <= high or value == math.inf:
                raise BadInput(f"--{name.replace('_', '-')} is {value}, expected {low} to {high}")


def build(config: Optim, module: nn.Module, steps: int) -> tuple[Optimizer, Callable[[int], None]]:
    """-> the optimiser, and a function that sets its learning rate for a step, counted from 0."""
    from timm.optim import create_optimizer_v2  # takes two seconds, which most commands need not wait for
    from timm.scheduler import CosineLRScheduler

    extra = {} if config.optimizer == "adamw" else {"momentum": config.momentum}
    optimizer = create_optimizer_v2(
        module, opt=config.optimizer, lr=config.lr, weight_decay=config.weight_decay, filter_bias_and_bn=True, **extra
    )
    warmup = int(config.warmup * steps)
    schedule = CosineLRScheduler(
        optimizer,
        t_initial=max(1, steps - warmup),
        warmup_t=warmup,
        warmup_lr_init=config.lr / max(1, warmup),
        warmup_prefix=True,
        t_in_epochs=False,
    )
    return optimizer, schedule.step_update
