"""Optimizers and schedules are timm's, without its import: the same parameter groups, numbers and weights."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from timm.optim import create_optimizer_v2
from timm.scheduler.cosine_lr import CosineLRScheduler
from timm.scheduler.multistep_lr import MultiStepLRScheduler
from torch import nn

import ssl_core.optim as optim
from ssl_core.optim import Optim

STEPS = 20


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2, bias=False))


def of_timm(config: Optim, module: nn.Module, steps: int):
    extra: dict[str, Any] = {} if config.optimizer == "adamw" else {"momentum": config.momentum}
    found = create_optimizer_v2(module, config.optimizer, lr=config.lr, weight_decay=config.weight_decay, **extra)
    warmup = int(config.warmup * steps)
    warm: dict[str, Any] = dict(warmup_t=warmup, warmup_lr_init=config.lr / max(1, warmup), t_in_epochs=False)
    if config.lr_milestones:
        at = [max(1, round(one * steps)) + 1 for one in config.lr_milestones]  # it counts them from 1
        return found, MultiStepLRScheduler(found, at, config.lr_gamma, warmup_prefix=False, **warm).step_update
    return found, CosineLRScheduler(found, max(1, steps - warmup), warmup_prefix=True, **warm).step_update


@pytest.mark.parametrize("name", ["sgd", "momentum", "adamw", "lars"])
@pytest.mark.parametrize("more", [{}, {"weight_decay": 0.0, "warmup": 0.0}, {"lr_milestones": (0.01, 0.3, 0.8)}])
def test_training_is_timms_bit_for_bit(name, more):
    config = Optim(optimizer=name, lr=0.03, **more)
    ended = []
    for build in (optim.build_optimizer, of_timm):
        module = network()
        optimizer, set_lr = build(config, module, STEPS)
        used = []
        for step in range(STEPS):
            set_lr(step)
            used.append(
                [(len(group["params"]), group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
            )
            optimizer.zero_grad()
            module(torch.randn(8, 3, generator=torch.Generator().manual_seed(step))).square().mean().backward()
            optimizer.step()
        ended.append((type(optimizer), used, [weight.tolist() for weight in module.parameters()]))
    assert ended[0] == ended[1]


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("more", [{}, {"warmup": 1.0}, {"warmup": 0.0}, {"lr_milestones": (0.1, 0.5)}])
def test_schedules_are_timms_at_any_length(steps, more):
    config = Optim(lr=0.07, **more)
    timms, set_lr = of_timm(config, nn.Linear(1, 1), steps)
    for step in range(steps):
        set_lr(step)
        assert optim.learning_rate(config, step, steps) == timms.param_groups[0]["lr"]


def stepped(optimizer: torch.optim.Optimizer, module: nn.Module, steps: range) -> list[list[float]]:
    """The weights after these steps, in the first two of which half of them have no gradient yet."""
    weights = list(module.parameters())
    for step in steps:
        for i, weight in enumerate(weights):
            weight.grad = None if step < 2 and i % 2 else torch.full_like(weight, 1 + i + step)
        optimizer.step()
    return [weight.tolist() for weight in weights]


def test_fused_momentum_may_begin_late():
    """As where a head is used only later, which torch's fused SGD refuses: it trains as the one that is not fused."""
    options: dict[str, Any] = {"lr": 0.25, "momentum": 0.5, "nesterov": True}
    one, other, refused = network(), network(), network()
    fused = torch.optim.SGD(other.parameters(), **options, fused=True)
    with pytest.raises(TypeError):
        stepped(torch.optim.SGD(refused.parameters(), **options, fused=True), refused, range(3))
    optim._begin_momentum(fused)
    assert stepped(fused, other, range(4)) == stepped(torch.optim.SGD(one.parameters(), **options), one, range(4))


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars"])
def test_a_state_of_another_kind_of_device_brings_no_kernels(name):
    """On this CPU nothing is fused, neither at the beginning nor after a GPU's state was loaded."""
    config, one, other = Optim(optimizer=name, lr=0.25), network(), network()
    (optimizer, _), (loaded, _) = (optim.build_optimizer(config, module, STEPS) for module in (one, other))
    stepped(optimizer, one, range(3))
    state = deepcopy(optimizer.state_dict())
    of_gpu = {**state, "param_groups": [{**group, "fused": True} for group in state["param_groups"]]}
    optim.load_state(loaded, of_gpu)
    other.load_state_dict(one.state_dict())
    assert all(not group.get("fused") for group in loaded.param_groups) or name == "lars"
    assert of_gpu["param_groups"][0]["fused"]
    assert stepped(loaded, other, range(3, 6)) == stepped(optimizer, one, range(3, 6))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["sgd", "momentum", "adamw"])
def test_a_gpu_updates_all_weights_at_once(name):
    config, module = Optim(optimizer=name, lr=0.25), network().cuda()
    optimizer, _ = optim.build_optimizer(config, module, STEPS)
    assert all(group["fused"] for group in optimizer.param_groups)
    alone, _ = optim.build_optimizer(config, same := network(), STEPS)
    found, expected = stepped(optimizer, module, range(4)), stepped(alone, same, range(4))
    for one, other in zip(found, expected):
        torch.testing.assert_close(torch.tensor(one), torch.tensor(other), rtol=1e-5, atol=1e-6)
