"""Relative position: patches lie where their targets say, and are not given away by their borders."""

import pytest
import torch
from support.synthetic_images import FORMAT, batch_of, pretext

import ssl_core.tasks.relative as module
from kernels.random import RandomBits
from ssl_core.errors import UserError
from ssl_core.tasks.relative import Relative


def made(model, batch):
    return model.task.make_batch(batch, RandomBits(batch.ids, batch.epochs, 0), FORMAT)


def test_patches_lie_where_the_targets_say(monkeypatch):
    """By the corners that the kernel is given."""
    corners = []
    real = module.shuffle_tiles

    def noted(images, order, corner, *rest, **options):
        corners.append(corner)
        return real(images, order, corner, *rest, **options)

    monkeypatch.setattr(module, "shuffle_tiles", noted)
    model = pretext("relative", size=96, neighbors=8)
    views, targets = made(model, batch_of(50, 96))
    (where,) = corners
    patch, gap = model.task.patch, model.task.gap
    assert views.shape == (450, 3, patch, patch) and patch == 24 and gap == 8
    assert torch.equal(targets.sort(dim=1).values, torch.arange(8).expand(50, 8))
    apart = where[:, 1:] - where[:, :1]
    row, column = ((apart.double() / (patch + gap)).round().long() + 1).unbind(2)
    cell = 3 * row + column
    assert torch.equal(targets, cell - (cell > 4).long())
    assert (where >= 0).all() and (where <= 96 - patch).all()
    touching = (apart.abs().amax(2) < patch).any()
    assert not touching, "patches overlap"
    assert apart.abs().amax(2).unique().numel() > gap, "gaps vary"


def test_all_neighbors_are_asked_for_alike():
    model = pretext("relative")
    batch = batch_of(400)
    counts = torch.bincount(made(model, batch)[1].flatten(), minlength=8)
    assert counts.min() > 150 and counts.max() < 250  # 200 expected of each


def test_the_loss_is_the_mean_over_what_was_asked():
    model = pretext("relative", neighbors=2)
    inputs, targets = made(model, batch_of(6))
    predictions = model(inputs)
    losses = model.task.loss(predictions, targets)
    logs = predictions.detach().double().log_softmax(2)
    for i in range(6):
        wanted = -(logs[i, 0, targets[i, 0]] + logs[i, 1, targets[i, 1]]) / 2
        assert losses[i].item() == pytest.approx(wanted.item(), rel=1e-5)


@pytest.mark.parametrize("options", [{"neighbors": 0}, {"neighbors": 9}, {"gap": 0.9}, {"gap": -0.5}])
def test_refuses_what_cannot_work(options):
    with pytest.raises(UserError, match="relative: "):
        pretext("relative", **options)
    assert Relative.normalization == "image"
