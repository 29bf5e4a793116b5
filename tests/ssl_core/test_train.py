"""What the training loop promises: the same weights for any number of workers and parts, and after a stop."""

import itertools
import math

import pytest
import torch
import torch.multiprocessing as processes
from support.multi_process import BATCH, STEPS, batches, run, worker
from support.synthetic_images import FORMAT, arrays, batch_of, pretext
from torch import nn

import ssl_core.optim as optim
import ssl_core.storage.checkpoint as checkpoint
from kernels.random import RandomBits
from ssl_core.augmentations import ContrastiveAugmentation
from ssl_core.data.loaders.arrays import ArrayLoader
from ssl_core.data.sampler import ShuffledSampler
from ssl_core.errors import Diverged, UserError
from ssl_core.macs import encoder_macs
from ssl_core.optim import Optim
from ssl_core.train import TrainConfig, _has_unused, train


def flat(weights: dict) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in weights.values()])


def assert_same_training(one: dict, other: dict, task: str) -> None:
    """Losses and norms of gradients agree, and so do the weights to a small part of how far they have moved."""
    assert other["losses"] == pytest.approx(one["losses"], rel=1e-4)
    assert other["norms"][0] == pytest.approx(one["norms"][0], rel=1e-5)
    assert other["norms"] == pytest.approx(one["norms"], rel=1e-2)  # weights have moved by a hundred times the last
    moved = flat(one["weights"]) - flat(pretext(task, "convnet-plain").state_dict())
    apart = flat(other["weights"]) - flat(one["weights"])
    assert apart.norm() < 1e-3 * moved.norm()


SHARED = ("rotnet", "supervised", "npid", "simclr", "vicreg", "byol", "dino", "mae", "droppos", "colorize", "pirl")


@pytest.fixture(scope="module")
def three_workers(tmp_path_factory) -> list[dict]:
    """What each of three workers has after training each of SHARED together with the others."""
    folder = tmp_path_factory.mktemp("together")
    processes.spawn(worker, args=(3, SHARED, str(folder)), nprocs=3)
    return [torch.load(folder / f"{rank}.pt") for rank in range(3)]


@pytest.mark.parametrize("task", SHARED)
@pytest.mark.slow
def test_uneven_workers_train_as_one_does(task, three_workers):
    alone = run(task)
    shared = [outcomes[task] for outcomes in three_workers]
    for outcome in shared:
        assert_same_training(alone, outcome, task)
    assert shared[0]["losses"] == shared[1]["losses"] == shared[2]["losses"]
    for step in range(STEPS):
        sizes = [len(outcome["ids"][step]) for outcome in shared]
        assert sizes == [3, 2, 2] and sum(sizes) == BATCH
        assert torch.equal(torch.cat([outcome["ids"][step] for outcome in shared]), alone["ids"][step])


@pytest.mark.parametrize("task", ["rotnet", "supervised"])
@pytest.mark.parametrize("parts", [3, 100])
def test_a_batch_in_parts_trains_as_a_whole_one_does(task, parts):
    assert_same_training(run(task), run(task, grad_accumulation=parts), task)


@pytest.mark.parametrize("task", ["npid", "pirl"])
def test_each_worker_has_the_whole_memory(task, three_workers):
    """Of every image that any worker met: the same bits on both, and what one worker alone has."""
    visits, rows = (f"task.memory.{name}" for name in ("visits", "rows"))
    outcomes = (*(worker[task] for worker in three_workers), run(task))
    one, other, _, alone = (outcome["weights"] for outcome in outcomes)
    met = torch.cat(outcomes[-1]["ids"]).tolist()
    expected = {i for i in met if i % 5}  # every fifth counts for nothing
    assert set(one[visits].nonzero().flatten().tolist()) == expected and one[visits].max() == 1
    assert torch.equal(one[visits], alone[visits]) and torch.allclose(one[rows], alone[rows], atol=1e-4)
    assert torch.equal(one[rows], other[rows]) and torch.equal(one[visits], other[visits])


@pytest.mark.parametrize("task", ["byol", "dino"])
def test_each_worker_has_the_same_teacher(task, three_workers):
    """To the bit, although none is sent; and it has moved, but less than the encoder that it follows."""
    every = [worker[task]["weights"] for worker in three_workers]
    first = pretext(task, "convnet-plain").state_dict()
    of_teacher = [name for name in first if ".teacher." in name]
    assert len(of_teacher) > 12 and all(torch.equal(every[0][n], other[n]) for other in every for n in of_teacher)
    for name in (name for name in of_teacher if ".encoder." in name):
        student = name.replace("task.teacher.", "")
        assert torch.equal(first[name], first[student])
        assert 0 < (every[0][name] - first[name]).norm() < (every[0][student] - first[student]).norm()


def test_each_worker_has_counted_the_colors_of_all(three_workers):
    """Of every cell of every image that counts, as one worker alone does."""
    alone, *every = (
        outcome["weights"]["task.colors.counts"]
        for outcome in (run("colorize"), *(w["colorize"] for w in three_workers))
    )
    images = sum(int((batch.weights > 0).sum()) for batch in batches(range(STEPS)))
    assert alone.sum() == images * 8**2 and all(torch.equal(alone, counts) for counts in every)


def test_workers_of_uneven_shares_take_as_many_parts(three_workers):
    """Three images in three parts and two in two, with a memory that exchanges features after each, would hang."""
    one, other, _ = (worker["in parts"] for worker in three_workers)
    assert one["losses"] == other["losses"] and len(one["losses"]) == STEPS
    assert torch.equal(flat(one["weights"]), flat(other["weights"]))


@pytest.mark.slow
@pytest.mark.parametrize(("task", "encoder"), [("simclr", "pit_ti_224"), ("mae", "test_vit4"), ("simclr", "resnet18")])
def test_workers_are_told_whether_a_step_leaves_weights_unused(task, encoder):
    """Or they would wait for their gradients for ever: PiT has a norm after its last map, a decoder needs no mean."""
    options = {"views": ContrastiveAugmentation(crop=1.0)} if task == "simclr" else {}
    model, batch = pretext(task, encoder, 64, **options).train(), batch_of(4, 64)
    before = flat(model.state_dict())
    inputs, targets = model.task.make_batch(batch, RandomBits(batch.ids, batch.epochs, 0), FORMAT)
    assert _has_unused(model, 64) == (encoder == "pit_ti_224")
    assert torch.equal(flat(model.state_dict()), before) and model.training
    assert all(p.grad is None for p in model.parameters())
    model.task.loss(model(inputs), targets).sum().backward()
    assert any(p.grad is None for p in model.parameters()) == (encoder == "pit_ti_224")
    assert encoder_macs(model, 64) > 0 and all(p.requires_grad for p in model.parameters())


def test_images_of_weight_zero_count_for_nothing():
    plan = TrainConfig(steps=1, seed=0, optim=Optim())
    batch = batch_of(6)
    half = batch._replace(weights=torch.tensor([1.0, 1, 1, 0, 0, 0]))
    first = type(batch)(*(field[:3] for field in batch))
    results = []
    for given in (half, first):
        model = pretext("rotnet", "convnet-plain")
        [step] = train(model, [given], FORMAT, plan)
        results.append((float(step.metrics["loss"]), float(step.metrics["accuracy"]), flat(model.state_dict())))
    assert results[0][:2] == pytest.approx(results[1][:2], rel=1e-5)
    assert torch.allclose(results[0][2], results[1][2], atol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adamw", "lars"])
@pytest.mark.parametrize("task", ["rotnet", "context", "npid", "dino", "colorize"])
@pytest.mark.slow
def test_a_stopped_run_continues_to_the_same_bits(task, optimizer, tmp_path):
    steps, stop = 6, 3
    split = arrays(20)  # an epoch ends before and after the stop
    plan = TrainConfig(steps=steps, seed=0, optim=Optim(optimizer=optimizer, lr=0.01, clip_grad_norm=1.0))

    def going(model, part, start=None):
        batches = ArrayLoader(split, "cpu").training(ShuffledSampler(len(split), 0), 8, part, 0, 1)
        return train(model, batches, FORMAT, plan, start)

    whole = pretext(task)
    list(going(whole, range(steps)))
    for step in going(pretext(task), range(stop)):
        last = step
    checkpoint.save(tmp_path, last.state())
    state, _ = checkpoint.load_newest(tmp_path)
    resumed = pretext(task, seed=1)
    numbers = [step.number for step in going(resumed, range(state["step"], steps), state)]
    assert numbers == [4, 5, 6]
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    assert not torch.equal(flat(state["model"]), flat(whole.state_dict()))


def test_weights_that_are_not_finite_cannot_be_saved():
    model = pretext("rotnet")
    with torch.no_grad():
        model.encoder.stages[1][0].weight[0, 0, 0, 0] = math.nan
    [step] = train(model, [batch_of(4)], FORMAT, TrainConfig(steps=1, seed=0, optim=Optim()))
    with pytest.raises(Diverged, match="after step 1"):
        step.state()


def forward(size: int) -> int:
    """Multiply-accumulates of convnet for an image of side `size`: each stage of two convolutions halves the map."""
    sides = [size := -(-size // 2) for _ in range(3)]
    widths = zip((3, 32, 64), (32, 64, 128))
    return sum(side**2 * 9 * (before + after) * after for side, (before, after) in zip(sides, widths))


@pytest.mark.parametrize(
    ("task", "options", "once"),
    [
        ("rotnet", {}, 21_731_328),  # worked by hand: 4 * forward(24), three quarters of 32 px
        ("npid", {}, forward(24)),
        ("simclr", {}, 2 * forward(24)),
        ("pirl", {}, 2 * forward(24)),
        ("pirl", {"transform": "jigsaw"}, forward(24) + 4 * forward(14)),
        ("multi", {"tasks": ("rotnet", "jigsaw")}, 4 * forward(24) + 4 * forward(14)),
    ],
)
def test_counts_the_macs_of_all_views_forward_and_backward(task, options, once):
    assert encoder_macs(pretext(task, **options), 32) == 3 * once


def test_counting_macs_changes_nothing():
    model = pretext("jigsaw").train()
    before = flat(model.state_dict())
    encoder_macs(model, 32)
    assert model.training and torch.equal(flat(model.state_dict()), before)


def test_trains_in_bf16_on_a_cpu():
    losses = {}
    for precision in ("fp32", "bf16"):
        model = pretext("rotnet")
        plan = TrainConfig(steps=3, seed=0, optim=Optim(lr=0.05), precision=precision)
        losses[precision] = [float(step.metrics["loss"]) for step in train(model, [batch_of(8)] * 3, FORMAT, plan)]
        assert all(p.dtype == torch.float32 for p in model.parameters())
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)
    assert losses["bf16"][0] != losses["fp32"][0]


def test_the_learning_rate_warms_up_and_ends_near_zero():
    plan = TrainConfig(steps=20, seed=0, optim=Optim(lr=0.4, warmup=0.25))
    rates = [float(step.metrics["lr"]) for step in train(pretext("rotnet"), [batch_of(2)] * 20, FORMAT, plan)]
    assert rates[:6] == pytest.approx([0.08, 0.144, 0.208, 0.272, 0.336, 0.4])
    assert all(before > after for before, after in itertools.pairwise(rates[5:]))
    assert 0 < rates[-1] < 0.02 * 0.4


def test_learning_rates_fall_in_steps():
    """Warm up over the first tenth, then 0.4 until step 10 of 20, a quarter until step 15, a sixteenth to the end."""
    plan = TrainConfig(steps=20, seed=0, optim=Optim(lr=0.4, warmup=0.1, lr_milestones=(0.5, 0.75), lr_gamma=0.25))
    rates = [float(step.metrics["lr"]) for step in train(pretext("rotnet"), [batch_of(2)] * 20, FORMAT, plan)]
    assert rates == pytest.approx([0.2, 0.3] + 8 * [0.4] + 5 * [0.1] + 5 * [0.025])


@pytest.mark.parametrize("lr_milestones", [(0.5, 0.4), (0.5, 0.5), (0.0,), (1.0,), (float("nan"),)])
def test_steps_that_are_none_are_refused(lr_milestones):
    with pytest.raises(UserError, match="--lr-milestones"):
        Optim(lr_milestones=lr_milestones).check()


@pytest.mark.slow
def test_momentum_is_without_nesterovs_correction():
    """Two steps down f(w) = w: both keep v = g + 0.9 v; plain momentum moves by v, Nesterov's by g + 0.9 v."""
    moved = {}
    for name in ("momentum", "sgd"):
        module = nn.Linear(1, 1, bias=False)
        module.weight.data.fill_(0.0)
        config = Optim(optimizer=name, lr=1.0, weight_decay=0.0, warmup=0.0, lr_milestones=(0.9,))
        optimizer, set_lr = optim.build_optimizer(config, module, 10)
        for step in range(2):
            set_lr(step)
            module.weight.grad = torch.ones(1, 1)
            optimizer.step()
        moved[name] = -module.weight.item()
    assert moved == pytest.approx({"momentum": 1 + 1.9, "sgd": 1.9 + 2.71})


def rates(config: Optim, steps: int, fractions: list[float]) -> list[float]:
    """Returns the learning rate at these fractions of a training of so many steps."""
    optimizer, set_lr = optim.build_optimizer(config, nn.Linear(1, 1), steps)
    found = []
    for fraction in fractions:
        set_lr(min(steps - 1, round(fraction * steps)))
        found.append(optimizer.param_groups[0]["lr"])
    return found


@pytest.mark.parametrize(
    "config", [Optim(lr=1.0), Optim(lr=1.0, warmup=0.1, lr_milestones=(0.3, 0.6))], ids=["cosine", "steps"]
)
def test_a_schedule_has_the_same_shape_at_any_length(config):
    """At 50 steps as at 50,000, up to what one of 50 steps makes; and it always ends low, and reaches its peak."""
    fractions = [i / 25 + 0.01 for i in range(25)]
    fractions = [f for f in fractions if all(abs(f - at) > 0.02 for at in config.lr_milestones)]
    short, long = rates(config, 50, fractions), rates(config, 50_000, fractions)
    assert max(abs(one - other) for one, other in zip(short, long)) < 0.13
    for steps in (1, 2, 3, 5, 50, 5000):
        whole = rates(config, steps, [i / steps for i in range(steps)])
        assert all(0 < lr <= 1 for lr in whole) and max(whole) == pytest.approx(1.0, abs=0.01)
        if steps >= 50:
            assert whole[-1] < 0.02 and whole[0] <= 0.2
