"""The norm of the gradients that a step has, against autograd's gradients of the mean loss and numpy's norm."""

import numpy as np
import pytest
import torch
from support.synthetic_images import FORMAT, batch_of, pretext
from torch.utils._python_dispatch import TorchDispatchMode

from kernels.random import RandomBits
from ssl_core.optim import Optim
from ssl_core.train import TrainConfig, train


def norm_of_the_mean_loss() -> float:
    """Of a batch of eight, at the weights that training starts from."""
    model, batch = pretext("rotnet").train(), batch_of(8)
    inputs, targets = model.task.make_batch(batch, RandomBits(batch.ids, batch.epochs, 0), FORMAT)
    loss = model.task.loss(model(inputs), targets).mean()
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    return float(np.linalg.norm(np.concatenate([g.flatten().double().numpy() for g in gradients])))


@pytest.mark.parametrize("clip", [0.0, 0.01])
def test_it_is_that_of_the_mean_loss_before_it_is_clipped(clip):
    plan = TrainConfig(steps=1, seed=0, optim=Optim(clip_grad_norm=clip))
    [step] = train(pretext("rotnet"), [batch_of(8)], FORMAT, plan)
    assert float(step.metrics["grad_norm"]) == pytest.approx(norm_of_the_mean_loss(), rel=1e-5)
    assert clip < norm_of_the_mean_loss()


@pytest.mark.parametrize("clip", [0.0, 0.01])
def test_weights_move_by_no_more_than_is_clipped_to(clip):
    optim = Optim(optimizer="momentum", lr=1.0, warmup=0.0, weight_decay=0.0, clip_grad_norm=clip)
    plan = TrainConfig(steps=1, seed=0, optim=optim)
    model = pretext("rotnet")
    before = [p.detach().clone() for p in model.parameters()]
    [step] = train(model, [batch_of(8)], FORMAT, plan)
    moved = torch.cat([(p.detach() - old).flatten() for p, old in zip(model.parameters(), before)]).norm()
    assert float(moved) == pytest.approx(clip or float(step.metrics["grad_norm"]), rel=1e-3)


class NoNumberIsAskedFor(TorchDispatchMode):
    """Fails where a float or a bool of a tensor becomes Python's, for which a GPU would be waited for.

    Integers of tensors are sizes of images, which are on the CPU anywhere.
    """

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        asks = function is torch.ops.aten._local_scalar_dense.default and args[0].dtype != torch.int64
        assert not asks, "a step waits for the device"
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("clip", [0.0, 0.01])
def test_no_step_asks_the_device_for_a_number(clip):
    plan = TrainConfig(steps=3, seed=0, optim=Optim(clip_grad_norm=clip))
    steps = train(pretext("rotnet"), [batch_of(8)] * 3, FORMAT, plan)
    next(steps)  # what is asked once, at the beginning, is no matter
    with NoNumberIsAskedFor():
        metrics = [step.metrics for step in steps]
    assert all(float(one["grad_norm"]) > 0 for one in metrics)
    with pytest.raises(AssertionError, match="waits"), NoNumberIsAskedFor():
        float(torch.ones(1))
