"""Builds optimizers and learning-rate schedules: timm's, chosen by a few options."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from torch.optim import Optimizer

from ssl_core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Optim:
    """Sets the optimizer and the learning-rate schedule: linear warm-up, then a cosine to zero, or steps."""

    optimizer: Literal["sgd", "momentum", "adamw", "lars"] = "sgd"
    """sgd is Nesterov's, momentum without his correction"""
    lr: float = 0.1
    """peak learning rate, for the global batch as it is"""
    weight_decay: float = 1e-4
    """not applied to biases and normalization layers"""
    momentum: float = 0.9
    """of sgd, momentum and lars"""
    warmup: float = 0.2
    """fraction of the steps over which the learning rate rises"""
    lr_milestones: tuple[float, ...] = ()
    """fractions of the steps at which the learning rate falls to --lr-gamma of what it was; without any it is a
    cosine"""
    lr_gamma: float = 0.1
    """what is left of the learning rate at each --lr-milestones"""
    clip_grad_norm: float = 0.0
    """largest gradient norm; 0 does not clip"""

    def check(self) -> None:
        """Checks the options.

        Raises:
            UserError: If a value cannot train anything.
        """
        for name, low, high in (
            ("lr", 0, math.inf),
            ("weight_decay", 0, math.inf),
            ("momentum", 0, 1),
            ("warmup", 0, 1),
            ("lr_gamma", 0, 1),
            ("clip_grad_norm", 0, math.inf),
        ):
            value = getattr(self, name)
            if not low <= value <= high or value == math.inf:
                raise UserError(f"--{name.replace('_', '-')} is {value}, expected {low} to {high}")
        if list(self.lr_milestones) != sorted({at for at in self.lr_milestones if 0 < at < 1}):
            raise UserError(
                f"--lr-milestones {' '.join(map(str, self.lr_milestones))}: expected rising numbers between 0 and 1"
            )


def build_optimizer(config: Optim, module: nn.Module, steps: int) -> tuple[Optimizer, Callable[[int], None]]:
    """Builds the optimizer and the schedule.

    Weight decay is not applied to biases and normalization layers. The learning rate rises linearly to `lr` during the
    warm-up, and then follows half a cosine from `lr` to zero (Loshchilov and Hutter 2017, arXiv:1608.03983), or is
    multiplied by `lr_gamma` at each of the milestones.

    Args:
        config: The options.
        module: Holds the weights to train.
        steps: Optimizer steps of the whole training.

    Returns:
        The optimizer, and a function that sets its learning rate for a step, counted from 0.
    """
    # timm takes two seconds, which most commands need not wait for
    from timm.optim import create_optimizer_v2  # pyright: ignore[reportPrivateImportUsage]  it has no __all__
    from timm.scheduler.cosine_lr import CosineLRScheduler
    from timm.scheduler.multistep_lr import MultiStepLRScheduler

    extra: dict[str, Any] = {} if config.optimizer == "adamw" else {"momentum": config.momentum}
    optimizer = create_optimizer_v2(
        module, opt=config.optimizer, lr=config.lr, weight_decay=config.weight_decay, filter_bias_and_bn=True, **extra
    )
    warmup = int(config.warmup * steps)
    warm: dict[str, Any] = dict(warmup_t=warmup, warmup_lr_init=config.lr / max(1, warmup), t_in_epochs=False)
    if config.lr_milestones:
        # timm counts milestones from 1, so that the step `at * steps`, counted from 0, is the first to be slower; the
        # first step of all is never one, however short the training is
        milestones = [max(1, round(at * steps)) + 1 for at in config.lr_milestones]
        schedule = MultiStepLRScheduler(optimizer, milestones, config.lr_gamma, warmup_prefix=False, **warm)
    else:
        schedule = CosineLRScheduler(optimizer, t_initial=max(1, steps - warmup), warmup_prefix=True, **warm)
    return optimizer, schedule.step_update
