"""Several tasks at once: a weighted sum, with a head, metrics and a memory of each."""

import pytest
import torch
from support.synthetic_images import FORMAT, batch_of, pretext

from kernels.random import RandomBits
from ssl_core.errors import UserError


def test_multi_is_the_weighted_sum_of_its_tasks():
    names, weights, batch = ("rotnet", "jigsaw", "npid"), (0.5, 2.0, 1.0), batch_of(6)
    model = pretext("multi", "convnet-plain", tasks=names, weights=weights).eval()
    inputs, targets = model.task.make_batch(batch, RandomBits(batch.ids, batch.epochs, 0), FORMAT)
    predictions = model(inputs)
    losses, metrics = model.task.loss(predictions, targets), model.task.metrics(predictions, targets)
    expected = torch.zeros(6)
    for name, weight in zip(names, weights):
        part = model.task.parts[name]
        own, true = part.make_batch(batch, RandomBits(batch.ids, batch.epochs, 0), FORMAT)
        said = part(model.encoder, own)
        expected += weight * part.loss(said, true)
        assert torch.allclose(metrics[f"{name}/loss"], part.loss(said, true))
        assert torch.equal(metrics[f"{name}/accuracy"], part.metrics(said, true)["accuracy"])
    assert torch.allclose(losses, expected, rtol=1e-5)
    before = model.task.parts["npid"].memory.rows.clone()
    model.task.after_step(model.encoder, [(predictions, targets)], 1.0)
    assert not torch.equal(model.task.parts["npid"].memory.rows, before)


@pytest.mark.parametrize(
    "options",
    [
        {"tasks": ("rotnet",)},
        {"tasks": ("rotnet", "rotnet")},
        {"tasks": ("rotnet", "color")},
        {"tasks": ("rotnet", "multi")},
        {"weights": (1.0,)},
        {"weights": (1.0, 0.0)},
    ],
)
def test_refuses_what_cannot_work(options):
    with pytest.raises(UserError, match="multi"):
        pretext("multi", **options)
