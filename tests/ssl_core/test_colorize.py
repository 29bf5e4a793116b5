"""Colorization: its loss and weights are the paper's, and what it shows has the colors that it says."""

import numpy as np
import pytest
import torch
from support.synthetic_images import FORMAT, batch_of, pretext

from kernels.lab import bin_centers, lab
from kernels.random import RandomBits
from ssl_core.color_bins import ColorBins, lab_to_srgb
from ssl_core.optim import Optim
from ssl_core.train import TrainConfig, train

CENTERS = bin_centers().double().numpy()
BINS = len(CENTERS)


def made(model, batch):
    return model.task.make_batch(batch, RandomBits(batch.ids, batch.epochs, 0), FORMAT)


def drawn_counts(seed: int = 0) -> np.ndarray:
    """Of colors as photos have them: mostly gray, many not at all."""
    random = np.random.default_rng(seed)
    return random.poisson(300 * np.exp(-np.linalg.norm(CENTERS, axis=1) / 15))


def weights_by_hand(counts: np.ndarray, rebalance: float, sigma: float) -> np.ndarray:
    """Section 2.2 of the paper, one color after the other."""
    smoothed = np.zeros(BINS)
    for color in range(BINS):
        spread = np.exp(-((CENTERS - CENTERS[color]) ** 2).sum(1) / (2 * sigma**2))
        smoothed += counts[color] / counts.sum() * spread / spread.sum()
    assert smoothed.sum() == pytest.approx(1)
    weights = 1 / ((1 - rebalance) * smoothed + rebalance / BINS)
    return weights / np.dot(smoothed, weights)


def target_by_hand(color: int, sigma: float) -> np.ndarray:
    """The soft encoding of section 2.1: five nearest bins, by a Gaussian; of several as near, the first."""
    distance = np.sqrt(((CENTERS - CENTERS[color]) ** 2).sum(1))
    target = np.zeros(BINS)
    for near in sorted(range(BINS), key=lambda other: (round(distance[other], 6), other))[:5]:
        target[near] = np.exp(-(distance[near] ** 2) / (2 * sigma**2))
    return target / target.sum()


@pytest.mark.parametrize(("rebalance", "sigma"), [(0.5, 5.0), (0.1, 5.0), (1.0, 5.0), (0.5, 12.0)])
@pytest.mark.parametrize("counted", [True, False])
def test_the_loss_is_the_papers(rebalance, sigma, counted):
    model = pretext("colorize", rebalance=rebalance, sigma=sigma)
    counts = drawn_counts()
    if counted:
        model.task.colors.counts.copy_(torch.from_numpy(counts))
    weights = weights_by_hand(counts, rebalance, sigma) if counted else np.ones(BINS)
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(4, BINS, 3, 3, generator=generator)
    bins = torch.randint(0, BINS, (4, 3, 3), generator=generator)
    losses = model.task.loss(logits, (bins, torch.ones(4)))
    logs = logits.double().log_softmax(1).numpy()
    for i in range(4):
        cells = [
            -weights[color] * np.dot(target_by_hand(color, sigma), logs[i, :, y, x])
            for (y, x), color in np.ndenumerate(bins[i].numpy())
        ]
        assert losses[i].item() == pytest.approx(np.mean(cells), rel=1e-5)


@pytest.mark.parametrize("rebalance", [0.01, 0.5, 1.0])
def test_rare_colors_count_more(rebalance):
    counts = drawn_counts()
    colors = ColorBins(rebalance, 5.0)
    assert torch.equal(colors.weights(), torch.ones(BINS))
    colors.counts.copy_(torch.from_numpy(counts))
    found = colors.weights().numpy()
    np.testing.assert_allclose(found, weights_by_hand(counts, rebalance, 5.0), rtol=1e-5)
    gray, vivid = (np.argmin(np.abs(CENTERS - place).sum(1)) for place in ((0, 0), (80, 60)))
    assert found[gray] == found[vivid] == pytest.approx(1) if rebalance == 1 else found[vivid] > 5 * found[gray]


def test_colors_are_counted_after_the_step():
    """So that a step is weighed by those before it; images that count for nothing are not counted."""
    model = pretext("colorize")
    batch = batch_of(6)._replace(weights=torch.tensor([1.0, 1, 0, 1, 0, 1]))
    _, (bins, _) = made(model, batch)
    expected = np.bincount(bins[batch.weights > 0].flatten().numpy(), minlength=BINS)
    plan = TrainConfig(steps=3, seed=0, optim=Optim(lr=0.0), grad_accumulation=2)
    seen = []
    for step in train(model, [batch] * 3, FORMAT, plan):
        np.testing.assert_array_equal(model.task.colors.counts.numpy(), step.number * expected)
        seen.append((float(step.metrics["loss"]), model.task.colors.weights()))
    assert "task.colors.counts" in step.state()["model"]
    first, second, third = seen
    plain = pretext("colorize", rebalance=1.0)
    [of_plain] = train(plain, [batch], FORMAT, TrainConfig(steps=1, seed=0, optim=Optim(lr=0.0), grad_accumulation=2))
    assert first[0] == pytest.approx(float(of_plain.metrics["loss"]), rel=1e-6), "weights are 1 at first"
    assert torch.allclose(first[1], third[1]) and second[0] != pytest.approx(first[0], rel=1e-3)


def test_metrics_are_the_shares_of_right_cells():
    model = pretext("colorize")
    bins = torch.tensor([[[3, 7]]])
    logits = torch.zeros(1, BINS, 1, 2)
    logits[0, :4, 0, 0] = torch.tensor([1.0, 2, 3, 4])  # bin 3 is the likeliest
    logits[0, 5:9, 0, 1] = torch.tensor([4.0, 3, 2, 1])  # bin 7 is the third
    values = model.task.metrics(logits, (bins, torch.ones(1)))
    assert {name: value.tolist() for name, value in values.items()} == {"accuracy": [0.5], "top5": [1.0]}


@pytest.mark.parametrize(
    ("encoder", "size"), [("convnet", 32), ("convnet", 37), ("resnet18", 64), ("convnext_atto", 70)]
)
@pytest.mark.parametrize("cell", [2, 4, 8, 16])
def test_predicts_each_cell_of_windows_of_any_size(encoder, size, cell):
    """Whether a cell is smaller or larger than the stride of the last map, and where that leaves out a window's end."""
    model = pretext("colorize", encoder, size, cell=cell, crop=0.8)
    inputs, targets = made(model, batch_of(2, size))
    side = model.task.size
    assert side % cell == 0 and abs(side - 0.8 * size) <= cell / 2 and inputs.shape == (2, 3, side, side)
    assert targets[0].shape == (2, side // cell, side // cell)
    assert model(inputs).shape == (2, BINS, side // cell, side // cell)


def test_a_class_token_learns_too():
    model = pretext("colorize", "vit-small-images", cell=2)
    inputs, targets = made(model, batch_of(2))
    model.task.loss(model(inputs), targets).sum().backward()
    assert all(p.grad is not None and p.grad.any() for n, p in model.encoder.named_parameters() if "cls" in n)


def test_sees_lightness_alone():
    """In the format that the encoder is evaluated with, and of the window whose colors are asked for."""
    model = pretext("colorize", crop=0.5)
    batch = batch_of(5)
    inputs, (bins, weights) = made(model, batch)
    pixels = inputs * torch.tensor(FORMAT.std).view(3, 1, 1) + torch.tensor(FORMAT.mean).view(3, 1, 1)
    assert torch.allclose(pixels, pixels[:, :1].expand_as(pixels), atol=1e-4) and torch.equal(weights, batch.weights)
    for i in range(5):
        found = []
        for flip in (0, 1):
            for y in range(17):
                for x in range(17):
                    offset = torch.tensor([[y, x]])
                    window, colors = lab(
                        batch.images[i : i + 1], torch.tensor([flip]), offset, size=16, cell=4, **FORMAT.options()
                    )
                    if torch.equal(window[0], inputs[i]):
                        found.append(torch.equal(colors[0], bins[i]))
        assert found and any(found)


def test_colors_come_back_as_srgb():
    """The inverse of the kernel's definition, on colors whose CIELAB is published (Lindbloom), and in its gamut."""
    published = torch.tensor([[53.24, 80.09, 67.20], [87.73, -86.18, 83.18], [32.30, 79.19, -107.86], [100.0, 0, 0]])
    wanted = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]])
    assert (lab_to_srgb(published).int() - wanted).abs().max() <= 1
    grays = lab_to_srgb(torch.stack([torch.linspace(0, 100, 50), torch.zeros(50), torch.zeros(50)], 1)).int()
    assert (grays == grays[:, :1]).all() and (grays[:, 0].diff() > 0).all() and grays[0, 0] == 0


def test_every_color_that_is_shown_falls_into_its_bin():
    """A center at a lightness where it is in gamut, shown and converted by the kernel, has the bin that it is of."""
    lightness = torch.arange(2.0, 100, 2)
    colors = torch.cat([lightness[:, None, None].expand(-1, BINS, 1), bin_centers().expand(len(lightness), -1, -1)], 2)
    shown = lab_to_srgb(colors)  # [lightness, bins, 3]
    back = lab(
        shown.flatten(0, 1)[:, None, None],
        *(torch.zeros(shape).int() for shape in ((shown[..., 0].numel(),), (shown[..., 0].numel(), 2))),
        size=1,
        cell=1,
        mean=(0, 0, 0),
        std=(1, 1, 1),
    )
    bins, light = back[1].view(len(lightness), BINS), back[0][:, 0].view(len(lightness), BINS) / 2.55
    inside = (light - lightness[:, None]).abs() < 0.3  # what is cut off changes its lightness
    right = bins == torch.arange(BINS)
    assert right.any(0).float().mean() > 0.8 and right[inside].float().mean() > 0.8


def test_shows_the_annealed_mean_of_colors():
    model = pretext("colorize")
    logits = torch.randn(1, BINS, 2, 2, generator=torch.Generator().manual_seed(0)) * 2
    found = model.task.colors.mean_colors(logits)
    shares = np.exp(logits.double().numpy() / 0.38)
    expected = np.einsum("bqhw,qc->bchw", shares / shares.sum(1, keepdims=True), CENTERS)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-3)
    inputs, targets = made(model, batch_of(3))
    certain = 1000 * torch.nn.functional.one_hot(targets[0], BINS).movedim(3, 1).float()
    for image, _ in model.task.visualize(inputs, certain, targets):
        gray, colorized, original = image.split(32, dim=1)
        assert torch.equal(colorized, original) and not torch.equal(colorized, gray)
        assert (gray == gray[..., :1]).all()
