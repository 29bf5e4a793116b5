"""Builds optimizers and learning-rate schedules, chosen by a few options: the same as timm's, number for number."""

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from ssl_core.errors import UserError

CAPTURABLE = ("sgd", "momentum", "adamw")  # whose steps a CUDA graph can hold; timm does not say so of its LARS
OWN = ("fused", "capturable", "lr")  # options of an optimizer that it does not take from a checkpoint


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


def build_optimizer(
    config: Optim, module: nn.Module, steps: int, capturable: bool = False
) -> tuple[Optimizer, Callable[[int], None]]:
    """Builds the optimizer and the schedule.

    Weight decay is not applied to biases and normalization layers. The learning rate rises linearly to `lr` during the
    warm-up, and then follows half a cosine from `lr` to zero (Loshchilov and Hutter 2017, arXiv:1608.03983), or is
    multiplied by `lr_gamma` at each of the milestones.

    Args:
        config: The options.
        module: Holds the weights to train.
        steps: Optimizer steps of the whole training.
        capturable: Whether a CUDA graph may hold its steps, see `CAPTURABLE`: the learning rate is then a tensor on the
            weights' device, in which `set_lr` writes. On a GPU it is float32, which is what torch's kernels read.

    Returns:
        The optimizer, and a function that sets its learning rate for a step, counted from 0.
    """
    optimizer = _build(config, _parameter_groups(module, config.weight_decay))
    if capturable:
        _make_capturable(optimizer)

    def set_lr(step: int) -> None:
        for group in optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(learning_rate(config, step, steps))
            else:
                group["lr"] = learning_rate(config, step, steps)

    set_lr(0)
    _begin_momentum(optimizer)
    return optimizer, set_lr


def state_dict(optimizer: Optimizer) -> dict:
    """Returns what `load_state` loads: `optimizer.state_dict()`, with the learning rate as a number."""
    state = optimizer.state_dict()
    return {**state, "param_groups": [{**group, "lr": float(group["lr"])} for group in state["param_groups"]]}


def load_state(optimizer: Optimizer, state: dict) -> None:
    """Loads what `state_dict` returned, perhaps on another kind of device, but not its kernels.

    Args:
        optimizer: What `build_optimizer` returned for the same options and weights.
        state: Its group's options and the state of each weight; it is not changed.
    """
    own = [{name: group[name] for name in OWN if name in group} for group in optimizer.param_groups]
    groups = [{**saved, **mine} for saved, mine in zip(state["param_groups"], own, strict=True)]
    optimizer.load_state_dict({**state, "param_groups": groups})
    _begin_momentum(optimizer)


def _begin_momentum(optimizer: Optimizer) -> None:
    """Sets momentum to zero where there is none yet: torch's fused SGD refuses weights that get a gradient later than
    others. The first step from zero is the one that has none."""
    for group in optimizer.param_groups:
        if isinstance(optimizer, SGD) and group["fused"] and group["momentum"]:
            for weight in group["params"]:
                optimizer.state[weight].setdefault("momentum_buffer", torch.zeros_like(weight))


def _fused(groups: list[dict]) -> bool | None:
    """Returns whether one kernel updates many weights at once: on GPUs. On a CPU it would round differently."""
    return all(weight.is_cuda for group in groups for weight in group["params"]) or None


def _make_capturable(optimizer: Optimizer) -> None:
    """Makes learning rates tensors; given to an optimizer when it is built, they would be waited for."""
    for group in optimizer.param_groups:
        # float32 on a GPU, since fused kernels read no other; a CPU's loops read the number itself
        dtype = torch.float32 if group["fused"] else torch.float64
        group["lr"] = torch.full((), group["lr"], dtype=dtype, device=group["params"][0].device)
        if "capturable" in group:
            group["capturable"] = bool(group["fused"])


def _build(config: Optim, groups: list[dict]) -> Optimizer:
    if config.optimizer == "adamw":
        return AdamW(groups, lr=config.lr, fused=_fused(groups))
    if config.optimizer == "lars":
        # PyTorch has none; timm takes two seconds, which other trainings need not wait for
        from timm.optim.lars import Lars

        # pyright takes its default of 0 for the type
        return Lars(groups, lr=config.lr, momentum=config.momentum)  # pyright: ignore[reportArgumentType]
    nesterov = config.optimizer == "sgd"
    return SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov, fused=_fused(groups))


def _parameter_groups(module: nn.Module, weight_decay: float) -> list[dict]:
    """Returns parameters without weight decay, which are biases and those of normalization layers, and the others."""
    plain, decayed = [], []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            alone = not weight_decay or parameter.ndim <= 1 or name.endswith(".bias")
            (plain if alone else decayed).append(parameter)
    groups = [{"params": plain, "weight_decay": 0.0}, {"params": decayed, "weight_decay": weight_decay}]
    return [group for group in groups if group["params"]]


def learning_rate(config: Optim, step: int, steps: int) -> float:
    """Returns the learning rate of a step, counted from 0, of a training of so many."""
    warmup = int(config.warmup * steps)
    if step < warmup:
        first = config.lr / warmup
        return first + step * ((config.lr - first) / warmup)
    if config.lr_milestones:
        # the first step of all is never slower, however short the training is
        milestones = [max(1, round(at * steps)) for at in config.lr_milestones]
        return config.lr * config.lr_gamma ** bisect_right(milestones, step)
    return 0.5 * config.lr * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
