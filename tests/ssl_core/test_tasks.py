"""What every pretext task promises, and what each built-in one promises besides."""

import math

import pytest
import torch
from support.synthetic_images import CLASSES, FORMAT, IMAGES, batch_of, gradients, pretext
from torch import nn

from kernels.random import RandomBits
from ssl_core.data.batch import Batch
from ssl_core.encoders.small import ConvNet
from ssl_core.errors import UserError
from ssl_core.optim import Optim
from ssl_core.task import DataInfo, EncoderInfo, cover, tasks
from ssl_core.train import TrainConfig, train

# What eight images allow to learn by heart in 30 steps: covariances in hundreds of dimensions cannot all be small, and
# the places of 96 patches are many
EASY = {"vicreg": {"projection_dim": 16}, "droppos": {"mask_ratio": 0.9}}

each_task = pytest.mark.parametrize("task", tasks())
INFO = EncoderInfo("convnet", (32, 64, 128), (2, 4, 8))
TOKENS = EncoderInfo("vit-small-images", (64,) * 6, (4, 4, 4, 4, 0, 0), patch_size=4, prefix=1)


def build(task: str, size: int = 32, classes: int = CLASSES, info: EncoderInfo | None = None, **options):
    info = info or (TOKENS if tasks()[task].needs_tokens else INFO)
    return tasks()[task](tasks()[task].Config(**options), info, DataInfo(size, classes, IMAGES))


def make(task, batch: Batch, seed: int = 0):
    return task.make_batch(batch, RandomBits(batch.ids, batch.epochs, seed), FORMAT)


def tensors(value) -> list[torch.Tensor]:
    return [value] if isinstance(value, torch.Tensor) else [t for part in value for t in tensors(part)]


def equal(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))


def rows_of(value, images: int) -> list[torch.Tensor]:
    """Everything that was made, as one row for each image."""
    return [tensor.reshape(images, -1) for tensor in tensors(value)]


@each_task
def test_a_batch_hangs_on_seed_and_epoch_alone(task):
    made = build(task)
    first = make(made, batch_of(8))
    assert equal(first, make(build(task), batch_of(8)))
    assert not equal(first, make(made, batch_of(8), seed=1))
    assert not equal(first, make(made, batch_of(8, epoch=1)))


@each_task
def test_an_image_is_drawn_alike_in_any_batch(task):
    made, whole, chosen = build(task), batch_of(8), torch.tensor([6, 1, 3])
    part = Batch(*(field[chosen] for field in whole))
    for all_rows, some_rows in zip(rows_of(make(made, whole), 8), rows_of(make(made, part), 3), strict=True):
        assert torch.equal(all_rows[chosen], some_rows)


@each_task
def test_one_finite_loss_and_metric_for_each_image(task):
    model, batch = pretext(task), batch_of(8)
    inputs, targets = make(model.task, batch)
    predictions = model(inputs)
    for value in (model.task.loss(predictions, targets), *model.task.metrics(predictions, targets).values()):
        assert value.shape == (8,) and value.dtype == torch.float32
        assert value.isfinite().all()


@pytest.mark.parametrize(("task", "classes"), [("rotnet", 4), ("jigsaw", 24), ("supervised", CLASSES)])
def test_a_classifier_starts_at_chance(task, classes):
    model, batch = pretext(task), batch_of(32)
    inputs, targets = make(model.task, batch)
    assert model.task.loss(model(inputs), targets).mean().item() == pytest.approx(math.log(classes), abs=0.3)


@each_task
@pytest.mark.parametrize("encoder", ["convnet", "convnet-plain", "resnet18"])
@pytest.mark.slow
def test_the_gradient_reaches_the_whole_encoder(task, encoder):
    model = pretext(task, encoder)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # timm starts residual branches at zero, which holds the gradient back
            nn.init.ones_(module.weight)
    inputs, targets = make(model.task, batch_of(4))
    model.task.loss(model(inputs), targets).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.any() or not name.startswith("encoder."), name


@each_task
@pytest.mark.slow
def test_learns_one_batch_by_heart(task):
    model, batch = pretext(task, **EASY.get(task, {})), batch_of(8)
    plan = TrainConfig(steps=30, seed=0, optim=model.task.config.optim)
    losses = [float(step.metrics["loss"]) for step in train(model, [batch] * 30, FORMAT, plan)]
    assert losses[-1] < 0.4 * max(losses[:2]), losses  # a memory is empty before the first step


@each_task
def test_shows_a_picture_for_each_image(task):
    model = pretext(task)
    inputs, targets = make(model.task, batch_of(4))
    pictures = model.task.visualize(inputs, model(inputs), targets)
    assert len(pictures) >= 4
    for image, caption in pictures:
        assert image.dtype == torch.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.device.type == "cpu"
        assert image.max() > image.min()
        assert isinstance(caption, str) and caption


@pytest.mark.parametrize(
    ("task", "size", "classes", "options"),
    [
        ("supervised", 32, 0, {}),
        ("jigsaw", 32, CLASSES, {"grid": 9}),
        ("jigsaw", 32, CLASSES, {"grid": 1}),
        ("jigsaw", 32, CLASSES, {"orders": 0}),
        ("jigsaw", 32, CLASSES, {"gap": 0.9}),
        ("jigsaw", 32, CLASSES, {"gap": -0.5}),
        ("jigsaw", 32, CLASSES, {"permutations": 25}),
        ("rotnet", 32, CLASSES, {"crop": 0.0}),
        ("rotnet", 32, CLASSES, {"crop": 1.5}),
        ("supervised", 32, CLASSES, {"crop": 0.0}),
        ("context", 32, CLASSES, {"crop": 0.0}),
        ("context", 32, CLASSES, {"crop": 0.2}),
        ("colorize", 32, CLASSES, {"crop": 0.0}),
        ("colorize", 32, CLASSES, {"cell": 0}),
        ("colorize", 32, CLASSES, {"cell": 3}),
        ("colorize", 32, CLASSES, {"cell": 12}),
        ("colorize", 32, CLASSES, {"cell": 64}),
        ("colorize", 32, CLASSES, {"rebalance": 0.0}),
        ("colorize", 32, CLASSES, {"rebalance": 1.5}),
        ("colorize", 32, CLASSES, {"sigma": 0.0}),
        ("colorize", 32, CLASSES, {"sigma": math.nan}),
    ],
)
def test_refuses_what_cannot_work(task, size, classes, options):
    with pytest.raises(UserError):
        build(task, size, classes, **options)


def test_rotnet_makes_the_four_turns_of_every_image():
    inputs, targets = make(build("rotnet", rotations="all"), batch_of(6))
    assert inputs.shape == (24, 3, 24, 24)
    assert torch.equal(targets, torch.arange(4).expand(6, 4))
    turned = inputs.unflatten(0, (6, 4))
    for k in range(4):
        assert torch.equal(turned[:, k], torch.rot90(turned[:, 0], k, (2, 3)))


def test_rotnet_makes_one_turn_that_its_label_names():
    every, one = (make(build("rotnet", rotations=turns), batch_of(40)) for turns in ("all", "one"))
    inputs, targets = one
    assert set(targets.flatten().tolist()) == {0, 1, 2, 3}
    assert torch.equal(inputs, every[0].unflatten(0, (40, 4))[torch.arange(40), targets[:, 0]])


def ramps(count: int, size: int, grid: int) -> torch.Tensor:
    """Images whose every tile is a ramp of brightness in a direction of its own, which standardizing leaves."""
    angles = torch.arange(grid**2) * (2 * math.pi / grid**2)
    line = torch.linspace(-1, 1, size // grid)
    tiles = [line * angle.cos() + line[:, None] * angle.sin() for angle in angles]
    image = torch.cat([torch.cat(tiles[row * grid : (row + 1) * grid], dim=1) for row in range(grid)])
    return (image * 80 + 127).to(torch.uint8)[None, :, :, None].repeat(count, 1, 1, 3)


class SeesDirection(nn.Module):
    """Answers which of `tiles` directions a tile's brightness rises in, as a one-hot embedding."""

    def __init__(self, tiles: int):
        super().__init__()
        self.tiles = tiles

    def forward(self, x):
        line = torch.linspace(-1, 1, x.shape[2])
        gray = x.mean(1)
        angle = torch.atan2((gray * line[:, None]).sum((1, 2)), (gray * line).sum((1, 2)))
        which = (angle / (2 * math.pi / self.tiles)).round().long() % self.tiles
        return [nn.functional.one_hot(which, self.tiles).float()[:, :, None, None]]


@pytest.mark.parametrize(("size", "grid"), [(32, 2), (96, 3), (64, 4)])
def test_jigsaw_orders_the_tiles_as_its_targets_say(size, grid):
    tiles = grid**2
    # channels that are shifted would reach into the neighboring tile
    task = build("jigsaw", size, info=EncoderInfo("fake", (tiles,), (1,)), grid=grid, shift=0, grayscale=0.5)
    task.head = nn.Identity()
    batch = batch_of(12, size)._replace(images=ramps(12, size, grid))
    inputs, targets = make(task, batch)
    seen = task(SeesDirection(tiles), inputs).unflatten(2, (tiles, tiles)).argmax(3)
    assert targets.shape == (12, task.config.orders)
    assert torch.equal(seen, task.permutations[targets])


@pytest.mark.parametrize("size", [32, 96])
def test_context_erases_about_a_quarter(size):
    count = 500
    batch = batch_of(count)._replace(images=torch.zeros(count, size, size, 3, dtype=torch.uint8))
    erased = make(build("context", size, mask="region"), batch)[1][1]
    assert 0.2 < erased.float().mean().item() < 0.3
    assert erased.amax((1, 2, 3)).all() and not erased.amin((1, 2, 3)).any()


@pytest.mark.parametrize("mask", ["region", "blocks", "center"])
def test_context_shows_all_but_what_it_erases(mask):
    masked, (whole, erased) = make(build("context", mask=mask), batch_of(16))
    assert torch.equal(masked, torch.where(erased.bool(), torch.zeros(()), whole))
    assert erased.amax((1, 2, 3)).all()


def test_context_is_judged_on_erased_pixels_only():
    task = build("context")
    targets = make(task, batch_of(8))[1]
    whole, erased = targets
    off = torch.randn(whole.shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(task.loss(whole + off * (1 - erased), targets), torch.zeros(8))
    expected = [off[i][erased[i].expand(3, -1, -1).bool()].square().mean() for i in range(8)]
    assert torch.allclose(task.loss(whole + off, targets), torch.stack(expected), rtol=1e-4)


def test_supervised_ignores_images_without_a_label():
    model = pretext("supervised")
    batch = batch_of(6)._replace(labels=torch.tensor([3, -1, 5, -1, 0, 9]))
    inputs, targets = make(model.task, batch)
    predictions = model(inputs)
    predictions.retain_grad()
    losses = model.task.loss(predictions, targets)
    losses.sum().backward()
    assert ((losses == 0) == (batch.labels < 0)).all()
    assert (predictions.grad.any(1) == (batch.labels >= 0)).all()


def test_the_images_have_structure():
    images = gradients(8).float()
    assert images.std((1, 2)).mean() > 10
    assert (images[:, 1:] - images[:, :-1]).abs().mean() < 8


@pytest.mark.parametrize(("size", "crop"), [(33, 0.9), (20, 0.75), (41, 0.8), (32, 1.0)])
def test_context_fills_windows_of_any_size(size, crop):
    """The decoder's map covers the window also where the encoder's stride divides neither."""
    made = build("context", size=size, crop=crop)
    images = torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8)
    ids = torch.arange(2)
    batch = Batch(images, ids, torch.zeros_like(ids), torch.ones(2), -torch.ones_like(ids))
    inputs, targets = make(made, batch)
    predictions = made(ConvNet(), inputs)
    assert predictions.shape == inputs.shape and made.loss(predictions, targets).shape == (2,)


def test_context_fills_windows_of_which_a_map_leaves_out_the_end():
    """As of an encoder whose convolutions have no padding; what lies there is as the map's last row and column."""
    model = pretext("context", "convnext_atto", 72)
    inputs, targets = make(model.task, batch_of(2, 72))
    assert model.encoder(inputs)[-1].shape[2:] == (2, 2)
    predictions = model(inputs)
    assert predictions.shape == inputs.shape and model.task.loss(predictions, targets).shape == (2,)
    covered = cover(torch.arange(4.0).view(1, 1, 2, 2), 32, 72)
    assert covered.tolist() == [[[[0, 1, 1], [2, 3, 3], [2, 3, 3]]]]


@pytest.mark.parametrize(
    "options",
    [{"lr": -1.0}, {"clip_grad_norm": -1.0}, {"warmup": 3.0}, {"weight_decay": float("nan")}, {"lr": float("inf")}],
)
def test_optimizers_refuse_what_cannot_train(options):
    with pytest.raises(UserError, match="expected"):
        Optim(**options).check()
