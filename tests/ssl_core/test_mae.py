"""MAE against the paper's description, worked out with numpy."""

import numpy as np
import pytest
import torch
from support.synthetic_images import FORMAT, batch_of, pretext

from kernels.random import RandomBits
from ssl_core.errors import UserError
from ssl_core.tasks.mae import sincos_positions


def made(model, count: int = 6):
    batch = batch_of(count)
    return model.task.make_batch(batch, RandomBits(batch.ids, batch.epochs, 0), FORMAT)


def test_three_quarters_of_the_patches_are_dropped_at_random():
    model = pretext("mae")
    (images, keep), (patches, dropped) = made(model, 200)
    assert images.shape == (200, 3, 32, 32) and keep.shape == (200, 16) and patches.shape == (200, 64, 48)
    assert (dropped.sum(1) == 48).all() and not dropped.gather(1, keep).any()
    met = torch.bincount(keep.flatten(), minlength=64)
    assert met.min() > 20 and met.max() < 90  # 50 expected of each
    assert len({tuple(sorted(row.tolist())) for row in keep}) == 200


def test_the_loss_is_of_dropped_patches_by_their_own_statistics():
    model = pretext("mae")
    inputs, targets = made(model)
    predictions = model(inputs)
    losses = model.task.loss(predictions, targets)
    images, dropped = inputs[0].numpy().astype(np.float64), targets[1].numpy()
    for i in range(len(images)):
        errors = []
        for patch in np.flatnonzero(dropped[i]):
            y, x = divmod(int(patch), 8)
            pixels = images[i, :, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4].reshape(-1)
            wanted = (pixels - pixels.mean()) / np.sqrt(pixels.var(ddof=1) + 1e-6)
            errors.append(np.mean((predictions[i, patch].detach().numpy() - wanted) ** 2))
        assert losses[i].item() == pytest.approx(np.mean(errors), rel=1e-4)


def test_the_encoder_never_sees_what_it_has_to_fill_in():
    model = pretext("mae").eval()
    (images, keep), targets = made(model)
    hidden = targets[1].bool()
    blocks = hidden.view(-1, 1, 8, 8).repeat_interleave(4, 2).repeat_interleave(4, 3)
    noisy = torch.where(blocks, torch.randn(images.shape), images)
    assert torch.equal(model((noisy, keep)), model((images, keep)))
    assert not torch.equal(noisy, images)


def test_positions_of_different_places_differ_and_those_of_near_ones_are_alike():
    table = sincos_positions(8, 32)
    near = table @ table.T
    assert table.shape == (64, 32) and torch.allclose(near.diagonal(), torch.tensor(16.0))
    assert (near - 100 * torch.eye(64)).max() < 15.9
    assert near[0, 1].item() == pytest.approx(near[8, 0].item(), abs=1e-4) and near[0, 1] > near[0, 2] > near[0, 27]


@pytest.mark.parametrize(
    "options",
    [{"mask_ratio": 0.0}, {"mask_ratio": 1.0}, {"decoder_dim": 48}, {"decoder_depth": 0}, {"min_area": 0.0}],
)
def test_refuses_what_cannot_work(options):
    with pytest.raises(UserError, match="mae: "):
        pretext("mae", **options)


def test_an_encoder_without_tokens_is_refused_and_others_are_named():
    from ssl_core.encoders.build import build, describe
    from ssl_core.task import DataInfo, tasks

    with pytest.raises(
        UserError, match=r"mae drops patch tokens, which encoder 'convnet' does not have: .*vit-small-im"
    ):
        tasks()["mae"](tasks()["mae"].Config(), describe(build("convnet", 32, 0), "convnet", 32), DataInfo(32))
