"""What only a GPU can show of training: that compiled steps are those that are not."""

from dataclasses import replace

import pytest
import torch
from support.synthetic_images import FORMAT, batch_of, pretext

from ssl_core.train import TrainConfig, train

pytestmark = pytest.mark.gpu
STEPS = 6


# one that keeps nothing of a step, and one with a memory; at learning rates that do not make much of rounding
@pytest.mark.parametrize(("task", "lr"), [("rotnet", 1e-2), ("pirl", 1e-4)])
def test_a_compiled_step_learns_the_same(task, lr):
    def losses(compile: bool) -> list[float]:
        model = pretext(task, batch=32).to("cuda", memory_format=torch.channels_last)
        optim = replace(model.task.config.optim, lr=lr, warmup=0.0)
        batch = type(batch_of(32))(*(field.cuda() for field in batch_of(32)))
        steps = train(model, [batch] * STEPS, FORMAT, TrainConfig(steps=STEPS, seed=0, optim=optim, compile=compile))
        return [float(step.metrics["loss"]) for step in steps]

    plain = losses(compile=False)
    assert plain[-1] < 0.99 * plain[0] and losses(compile=True) == pytest.approx(plain, rel=1e-3)
