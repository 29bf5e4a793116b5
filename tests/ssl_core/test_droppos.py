"""DropPos: patches without a position have none, and the loss is of these alone."""

import numpy as np
import pytest
import torch
from support.synthetic_images import FORMAT, batch_of, pretext

from kernels.random import RandomBits
from ssl_core.encoders.build import build
from ssl_core.errors import UserError


def made(model, count: int = 6):
    batch = batch_of(count)
    return model.task.make_batch(batch, RandomBits(batch.ids, batch.epochs, 0), FORMAT)


def moved(images: torch.Tensor, patch: int, order: torch.Tensor) -> torch.Tensor:
    """The same patches elsewhere: place i shows what place order[i] showed."""
    grid = images.shape[2] // patch
    cut = images.unflatten(3, (grid, patch)).unflatten(2, (grid, patch)).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    back = cut[:, order].unflatten(1, (grid, grid)).permute(0, 3, 1, 4, 2, 5)
    return back.flatten(4, 5).flatten(2, 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["vit-small-images", "vit_tiny_patch16_224", "vit_small_patch16_dinov3", "vit_small_patch16_rope_mixed_224"],
)
@torch.no_grad()
def test_a_patch_without_a_position_is_the_same_anywhere(name):
    """Learned embeddings and both kinds of rotary ones; those that have their positions are not the same elsewhere."""
    encoder = build(name, 64, 0).eval()
    for block in encoder.model.blocks:  # at random initialization hardly any token attends to another
        block.attn.qkv.weight.mul_(8)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    count = (64 // encoder.patch_size) ** 2
    order = torch.randperm(count, generator=torch.Generator().manual_seed(1))
    elsewhere = moved(images, encoder.patch_size, order)
    keep, now = (rows.expand(2, -1) for rows in (torch.arange(count), torch.argsort(order)))  # the same content
    none, all_of_them = torch.zeros(2, count, dtype=torch.bool), torch.ones(2, count, dtype=torch.bool)
    assert torch.allclose(encoder.tokens(images, keep, none), encoder.tokens(elsewhere, now, none), atol=1e-5)
    assert not torch.allclose(encoder.tokens(images, keep), encoder.tokens(elsewhere, now), atol=1e-3)
    assert torch.allclose(encoder.tokens(images, keep, all_of_them), encoder.tokens(images), atol=1e-5)
    assert torch.equal(encoder.tokens(images, None, none), encoder.tokens(images, keep, none))


def test_the_loss_is_of_patches_without_a_position():
    model = pretext("droppos")
    (images, keep), targets = made(model)
    assert keep.shape == (6, 16) and targets.shape == (6, 12) and torch.equal(targets, keep[:, 4:])
    predictions = model((images, keep))
    losses, accuracy = model.task.loss(predictions, targets), model.task.metrics(predictions, targets)["accuracy"]
    logits = predictions.detach().double().numpy()
    for i in range(6):
        wanted = [np.log(np.exp(logits[i, j]).sum()) - logits[i, j, targets[i, j]] for j in range(12)]
        assert losses[i].item() == pytest.approx(np.mean(wanted), rel=1e-5)
        assert accuracy[i].item() == pytest.approx(np.mean(logits[i].argmax(1) == targets[i].numpy()))


@pytest.mark.parametrize("options", [{"mask_ratio": 1.0}, {"drop_ratio": 0.0}, {"mask_ratio": -1.0}, {"min_area": 0.0}])
def test_refuses_what_cannot_work(options):
    with pytest.raises(UserError, match="droppos: "):
        pretext("droppos", **options)
