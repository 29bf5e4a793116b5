"""PIRL, NPID and SimCLR against plain computations, and the memory that the first two compare with."""

import math
from collections import Counter
from copy import deepcopy

import pytest
import torch
import torch.distributed as dist
from support.synthetic_images import FORMAT, batch_of, pretext
from torch.nn import functional as F

from kernels.random import RandomBits
from ssl_core.augmentations import BYTES, ContrastiveAugmentation, RandomCrops, resized_crop, resized_crops
from ssl_core.collectives import all_gather_with_grad, ddp_ignored
from ssl_core.errors import UserError
from ssl_core.memory_bank import MemoryBank, MemoryOptions
from ssl_core.optim import Optim
from ssl_core.task import InputFormat
from ssl_core.train import TrainConfig, train

TRANSFORMS = ("rotation", "jigsaw", "both")


def make(model, batch, seed: int = 0):
    return model.task.make_batch(batch, RandomBits(batch.ids, batch.epochs, seed), FORMAT)


def memory(*rows: tuple[float, ...], **options) -> MemoryBank:
    made = MemoryBank(len(rows), len(rows[0]), MemoryOptions(**options))
    made.rows.copy_(torch.tensor(rows))
    made.visits.fill_(1)
    return made


def plain_nce(feature, own, others, temperature: float = 0.07) -> float:
    """The loss of one feature, in Python's floats: no softmax, no logarithm of one."""
    near, *far = (math.exp(float(feature @ row) / temperature) for row in (own, *others))
    total = near + sum(far)
    return -math.log(near / total) - sum(math.log(1 - e / total) for e in far)


def compared(task, plain, others) -> list[tuple]:
    """For images 0, 1, ...: the row of each, and what it is told apart from. One that was seen has its row, and others
    that were seen theirs; for one that was not, the features `plain` of the batch are all there is."""
    rows, seen = task.memory.rows.double(), task.memory.visits >= task.memory.options.memory_warmup
    found = []
    for i, drawn in enumerate(others.tolist()):
        beside = [row for j, row in enumerate(plain) if j != i]
        found.append((rows[i], [rows[j] for j in drawn if seen[j]]) if seen[i] else (plain[i], beside))
    return found


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_pirl_is_the_papers_loss(transform):
    model = pretext("pirl", transform=transform, weight=0.3)
    task = model.task
    task.memory.visits[::2] = 10
    inputs, targets = make(model, batch_of(5))
    losses = task.loss(model(inputs), targets)
    pooled = [model.encoder(view)[-1].mean((2, 3)) for view in inputs[:2]]
    if transform == "rotation":
        moved = task.transformed(pooled[1])
    else:  # four tiles of each image, one after the other in the puzzle's order
        moved = task.transformed(torch.stack([task.embed(pooled[1][4 * i : 4 * i + 4]).flatten() for i in range(5)]))
    plain, moved = (F.normalize(f, dim=1).detach().double() for f in (task.head(pooled[0]), moved))
    for i, (own, others) in enumerate(compared(task, plain, inputs[3])):
        assert 4 <= len(others) < 63
        expected = 0.7 * plain_nce(plain[i], own, others) + 0.3 * plain_nce(moved[i], own, others)
        assert losses[i].item() == pytest.approx(expected, rel=1e-4)


def test_npid_is_pirl_without_a_transform():
    model = pretext("npid")
    inputs, targets = make(model, batch_of(5))
    predictions = model(inputs)
    losses, plain = model.task.loss(predictions, targets), predictions[0].detach().double()
    for i, (own, others) in enumerate(compared(model.task, plain, inputs[2])):
        assert losses[i].item() == pytest.approx(plain_nce(plain[i], own, others), rel=1e-4)


@pytest.mark.parametrize("task", ["pirl", "npid"])
def test_negatives_are_all_others_and_never_the_image_itself(task):
    """64 images and 512 negatives asked for: 63 draws, with replacement, over 63 others."""
    model, batch = pretext(task), batch_of(64)
    met: Counter = Counter()
    for epoch in range(20):
        others = make(model, batch._replace(epochs=torch.full((64,), epoch)))[0][-2]
        assert others.shape == (64, 63) and others.min() >= 0 and others.max() < 64
        assert not (others == batch.ids[:, None]).any()
        met.update(zip(batch.ids.repeat_interleave(63).tolist(), others.flatten().tolist()))
    assert len(met) == 64 * 63  # 20 expected of each: e^-20 that one is missing
    assert max(met.values()) < 60


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("task", ["pirl", "npid"])
def test_a_batch_is_judged_by_the_memory_from_before_it(task, parts):
    model, batch = pretext(task, "convnet-plain"), batch_of(8)
    batch = batch._replace(ids=torch.tensor([0, 1, 2, 3, 4, 5, 0, 1]))  # an epoch ends within the batch
    model.task.memory.visits.fill_(10)
    before = deepcopy(model)
    predictions = before(make(before, batch)[0])
    expected = before.task.loss(predictions, make(before, batch)[1]).mean().item()
    [step] = train(model, [batch], FORMAT, TrainConfig(steps=1, seed=0, optim=Optim(lr=0.1), grad_accumulation=parts))
    assert step.metrics["loss"].item() == pytest.approx(expected, rel=1e-5)
    rows, old = model.task.memory.rows, before.task.memory.rows
    assert torch.equal(rows[6:], old[6:]) and not (rows[:6] == old[:6]).all(1).any()


def test_the_memory_moves_as_worked_by_hand():
    bank = memory((1, 0), (0, 1), (0.6, 0.8), (-1, 0), memory_momentum=0.5)
    bank.update(
        torch.tensor([0, 2, 3]), torch.tensor([[0.0, 1], [0.8, 0.6], [0, 1]]), torch.tensor([1.0, 1, 0]), batch=3
    )
    half = math.sqrt(0.5)
    expected = torch.tensor([(half, half), (0, 1), (half, half), (-1, 0)])  # the last could not be decoded
    assert torch.allclose(bank.rows, expected, atol=1e-6)


def test_an_image_that_is_twice_in_a_batch_counts_as_it_was_last():
    bank = memory((1, 0), (0, 1), memory_momentum=0.75)
    features = torch.tensor([[-1.0, 0], [0, 1], [0.6, 0.8]])
    bank.update(torch.tensor([0, 0, 0]), features, torch.tensor([1.0, 1, 0]), batch=3)
    expected = F.normalize(torch.tensor([[0.75, 0.25]]), dim=1)
    assert torch.allclose(bank.rows[:1], expected) and torch.equal(bank.rows[1], torch.tensor([0.0, 1]))


def test_an_image_seen_for_the_first_time_is_compared_within_its_batch():
    bank = memory((1, 0), (0, 1), (-1, 0), (0, -1), memory_momentum=0.5, memory_warmup=1)
    bank.visits[:2] = 0
    features = torch.tensor([[0.6, 0.8], [1, 0], [0, 1]], requires_grad=True)
    ids, others, weights = torch.tensor([0, 2, 1]), torch.tensor([[2], [3], [3]]), torch.tensor([1.0, 1, 0])
    cosines = bank.cosines(features[:, None], ids, others, weights, batch=3)[:, 0]
    no = -math.inf  # the first has nothing drawn, and not the third, which is broken; the second has a row
    assert cosines[0].tolist() == pytest.approx([1, no, no, 0.6, no])
    assert cosines[1].tolist() == pytest.approx([-1, 0, no, no, no])
    bank.update(ids, features.detach(), weights, batch=3)
    assert bank.rows[0].tolist() == pytest.approx([0.6, 0.8]) and bank.visits.tolist() == [1, 0, 2, 1]


def test_the_seed_decides_the_first_memory():
    first, again, other = (pretext("npid", seed=seed).task.memory.rows for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.allclose(first.norm(dim=1), torch.ones(64))


def test_a_share_larger_than_the_batch_allows_is_refused(monkeypatch):
    """It would be waited for by workers that send less."""
    for name, value in (("is_initialized", True), ("get_world_size", 3)):
        monkeypatch.setattr(dist, name, lambda value=value: value)
    with pytest.raises(ValueError, match="4 rows: expected at most 3"):
        all_gather_with_grad(torch.zeros(4, 2), batch=8)


def test_ddp_leaves_memories_alone():
    model = pretext("multi", tasks=("npid", "pirl"))
    assert ddp_ignored(model) == [
        f"task.parts.{name}.memory.{buffer}" for name in ("npid", "pirl") for buffer in ("rows", "visits")
    ]
    assert set(ddp_ignored(model)) < set(model.state_dict())


def plain_nt_xent(features, ids, temperature: float) -> list[float]:
    """Each image's loss by the formula of section 2.1, two views a row, in Python's floats."""
    views = [(i, k) for i in range(len(ids)) for k in (0, 1)]
    losses = []
    for i, k in views:
        near = {(j, m): math.exp(float(features[i, k] @ features[j, m]) / temperature) for j, m in views}
        others = sum(value for (j, m), value in near.items() if (j, m) != (i, k))
        losses.append(-math.log(near[i, 1 - k] / others))
    return [(a + b) / 2 for a, b in zip(losses[::2], losses[1::2])]


def test_simclr_is_nt_xent():
    model = pretext("simclr", temperature=0.3)
    inputs, targets = make(model, batch_of(6))
    predictions = model(inputs)
    assert predictions[0].shape == (6, 2, 128)
    losses = model.task.loss(predictions, targets)
    assert losses.tolist() == pytest.approx(plain_nt_xent(predictions[0].detach().double(), range(6), 0.3), rel=1e-4)


def test_simclr_has_no_negatives_among_broken_images():
    model, batch = pretext("simclr", "convnet-plain"), batch_of(6)
    (images, ids, _), targets = make(model, batch)
    weights = torch.tensor([1.0, 0, 1, 1, 0, 1])
    predictions, good = model((images, ids, weights)), weights > 0
    losses = model.task.loss(predictions, targets)
    few = predictions[0][good]
    alone = model.task.loss((few, model.task.logits(few, ids[good], weights[good])), targets)
    assert torch.allclose(losses[good], alone) and losses.isfinite().all()


def test_simclr_does_not_push_an_image_from_itself():
    """One that an epoch ends with may begin the next, in the same batch."""
    model = pretext("simclr")
    features = F.normalize(torch.randn(3, 2, 8, generator=torch.Generator().manual_seed(0)), dim=2)
    ones = torch.ones(3)
    losses, pair = (
        model.task.loss((some, model.task.logits(some, torch.tensor(ids), ones[: len(ids)])), ())
        for some, ids in ((features, [5, 7, 5]), (features[:2], [5, 7]))
    )
    assert losses[0].item() == pytest.approx(pair[0].item(), rel=1e-5)


def test_a_view_of_everything_in_its_own_colors_is_the_image():
    views, batch = ContrastiveAugmentation(crop=1.0, min_area=1.0, jitter=0.0, grayscale=0.0), batch_of(4)
    words = torch.zeros(4, 5, dtype=torch.int64)
    words[:, 1] = 2**31  # half way between the aspects: square
    assert torch.equal(resized_crop(batch.images, words, 32, views.min_area), batch.images)
    shown = views.color(batch.images, torch.zeros(4, 10, dtype=torch.int64), InputFormat(**BYTES))
    assert torch.equal(shown.permute(0, 2, 3, 1), batch.images)


def places(size):
    """[size, size, 3] uint8: an image of which each pixel says where it is, four times its row and column."""
    line = torch.arange(size, dtype=torch.uint8) * 4
    return torch.stack([line.expand(size, -1).T, line.expand(size, -1), torch.zeros_like(line).expand(size, -1)], 2)


def test_crops_show_what_they_are_asked_to():
    """Boxes of 20 to 100 % of a 64 px image whose pixels say where they are; half of them mirrored."""
    size, count = 64, 400
    where = places(size)
    words = torch.randint(0, 2**32, (count, 5), generator=torch.Generator().manual_seed(0))
    shown = resized_crop(where.expand(count, -1, -1, -1), words, 64, 0.2).float() / 4
    across, down = (shown[:, 32, -1, 1] - shown[:, 32, 0, 1]) / 63 * size, shown[:, -1, 32, 0] - shown[:, 0, 32, 0]
    share = across.abs() * down / 63 * size / size**2
    assert 0.15 < share.min() < 0.25 and 0.85 < share.max() <= 1.01
    assert 0.57 < share.mean() < 0.63  # uniform over 0.2 to 1, a little less where long boxes are cut off
    assert 0.4 < (across < 0).float().mean() < 0.6
    aspect = down / 63 * size / across.abs()
    assert 0.7 < aspect.min() < 0.8 and 1.25 < aspect.max() < 1.45


def test_crops_of_two_sizes_show_two_shares_of_their_own_images():
    size, count = 64, 200
    images = places(size).repeat(count, 1, 1, 1)
    images[..., 2] = torch.arange(count)[:, None, None]
    words = torch.randint(0, 2**32, (count, 5, 5), generator=torch.Generator().manual_seed(1))
    large, small = resized_crops(images, words, (RandomCrops(48, 0.5, count=2), RandomCrops(32, 0.1, 0.3, count=3)))
    for shown, number, side, least, most in ((large, 2, 48, 0.5, 1.0), (small, 3, 32, 0.1, 0.3)):
        assert shown.shape == (count * number, side, side, 3)
        assert torch.equal(shown[:, 0, 0, 2].long(), torch.arange(count).repeat_interleave(number))
        ends = shown.float() / 4
        down, across = ends[:, -1, 0, 0] - ends[:, 0, 0, 0] + 1, (ends[:, 0, -1, 1] - ends[:, 0, 0, 1]).abs() + 1
        share = down * across / size**2
        assert abs(share.min() - least) < 0.06 and abs(share.max() - most) < 0.06
    pairs = large.unflatten(0, (count, 2)), small.unflatten(0, (count, 3))
    assert all(not torch.equal(own[:, 0], own[:, 1]) for own in pairs)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_pirl_transforms_what_it_says(transform):
    """Of an image that is one ramp from left to right: which way the ramp rises, and whether tiles lie in order."""
    model = pretext("pirl", transform=transform, views=ContrastiveAugmentation(jitter=0.0, grayscale=0.0))
    line = (torch.arange(32) * 7).to(torch.uint8)
    batch = batch_of(60)._replace(images=line[None, None, :, None].expand(60, 32, 32, 3).contiguous())
    other = make(model, batch)[0][1].mean(1)  # gray
    if transform == "rotation":
        across, down = other[:, 12, -1] - other[:, 12, 0], other[:, -1, 12] - other[:, 0, 12]
    else:
        assert other.shape == (240, 14, 14)
        across, down = other[:, 7, -1] - other[:, 7, 0], other[:, -1, 7] - other[:, 0, 7]
        tiles = other.mean((1, 2)).view(60, 4).argsort(1).argsort(1) // 2  # the two on the dark side
        assert len({tuple(order) for order in tiles.tolist()}) == 6  # every way to lay two of four
    turned = down.abs() > across.abs()
    assert turned.any() == (transform != "jigsaw") and not turned.all()


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("pirl", {"weight": 0.0}),
        ("pirl", {"transform": "jigsaw", "grid": 1}),
        ("pirl", {"transform": "both", "grid": 9}),
        ("pirl", {"memory": MemoryOptions(negatives=0)}),
        ("npid", {"memory": MemoryOptions(temperature=0.0)}),
        ("npid", {"memory": MemoryOptions(memory_momentum=1.0)}),
        ("npid", {"memory": MemoryOptions(memory_warmup=-1)}),
        ("npid", {"views": ContrastiveAugmentation(min_area=0.0)}),
        ("npid", {"views": ContrastiveAugmentation(jitter=2.0)}),
        ("simclr", {"views": ContrastiveAugmentation(crop=1.5)}),
        ("simclr", {"temperature": 0.0}),
    ],
)
def test_refuses_what_cannot_work(task, options):
    with pytest.raises(UserError):
        pretext(task, **options)


def test_a_memory_needs_others():
    with pytest.raises(UserError, match="at least 2"):
        MemoryBank(1, 8, MemoryOptions())
