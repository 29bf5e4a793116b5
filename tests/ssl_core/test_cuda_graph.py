"""What a CPU can show of CUDA graphs: a step through static buffers has the same bits, replayed or not."""

from dataclasses import replace

import pytest
import torch
from support.simulated_graphs import SimulatedStream, assert_same_bits
from support.synthetic_images import FORMAT, batch_of, pretext
from torch import nn

import ssl_core.cuda_graph as cuda_graph
import ssl_core.optim as optim
import ssl_core.train as training
from ssl_core.cuda_graph import MEASURED, WARM_UP
from ssl_core.data.batch import Batch
from ssl_core.errors import UserError
from ssl_core.optim import Optim
from ssl_core.task import tasks
from ssl_core.train import TrainConfig, train, why_no_graph

STEPS = WARM_UP + MEASURED + 3
each_task = pytest.mark.parametrize("task", tasks())


def batches(steps: int, count: int = 4) -> list[Batch]:
    """Batches that differ, in each of which an image counts for nothing."""
    weights = torch.ones(count)
    weights[1] = 0
    return [batch_of(count, epoch=step)._replace(weights=weights) for step in range(steps)]


def trained(model, given: list[Batch], mode: str, warn=lambda message: None, start=None, **options) -> tuple:
    """-> the metrics of each step, and the state after the last."""
    options = {"steps": STEPS, "optim": halved(model.task.config.optim), **options}
    plan = TrainConfig(seed=0, cuda_graphs=mode, **options)
    steps = list(train(model, given, FORMAT, plan, start, warn))
    state = steps[-1].state()
    for group in state["optimizer"]["param_groups"]:
        group.pop("capturable", None)  # which is of the optimizer, not of its state
    return [step.metrics for step in steps], state


def halved(config: Optim) -> Optim:
    """Learning rates that float32 holds: a power of two, halved again and again."""
    return replace(config, lr=2**-9, warmup=0.0, lr_milestones=tuple(i / 20 for i in range(1, 20)), lr_gamma=0.5)


@pytest.fixture
def simulate(monkeypatch):
    """-> a function that makes trainings use a SimulatedStream, given its options; -> what they have used.

    Optimizers are fused, with and without graphs, since others read the learning rate in Python on a CPU.
    """
    monkeypatch.setattr(optim, "_fused", lambda groups: True)

    def begin(**options) -> list[SimulatedStream]:
        used = []

        class Step(cuda_graph.GraphedStep):
            def __init__(self, compute, state, cuda, mode, warn):
                used.append(SimulatedStream(state, **options))
                super().__init__(compute, state, used[-1], mode, warn)

        monkeypatch.setattr(training, "GraphedStep", Step)
        monkeypatch.setattr(training, "why_no_graph", lambda *_: None)
        return used

    return begin


@each_task
@pytest.mark.slow
def test_static_buffers_train_the_same_bits(task):
    said = []
    plain = trained(pretext(task), batches(3), "off", said.append)
    assert said == []
    assert_same_bits(trained(pretext(task), batches(3), "auto", said.append), plain)
    assert said == ["no CUDA graph: a CPU has none"]


@pytest.mark.parametrize("task", ["rotnet", "byol", "pirl"])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adamw"])
def test_the_same_bits_in_parts_in_bf16_clipped_and_with_any_optimizer(task, optimizer, simulate):
    config = halved(Optim(optimizer=optimizer, clip_grad_norm=0.5))
    options = {"optim": config, "grad_accumulation": 2, "precision": "bf16"}
    plain, static = (trained(pretext(task), batches(WARM_UP + 2), mode, **options) for mode in ("off", "auto"))
    simulate()
    replayed = trained(pretext(task), batches(WARM_UP + 2), "on", **options)
    assert_same_bits((static, replayed), (plain, plain))


@each_task
@pytest.mark.slow
def test_replayed_steps_train_the_same_bits(task, simulate):
    """Learning rates, teachers' momentum and batches are read anew by what was captured once."""
    plain = trained(pretext(task), batches(WARM_UP + 4), "off")
    used = simulate()
    found = trained(pretext(task), batches(WARM_UP + 4), "on")
    (cuda,) = used
    assert (cuda.ran, cuda.measured, cuda.replayed) == (WARM_UP, 0, 4)
    assert_same_bits(found, plain)
    rates = [float(metrics["lr"]) for metrics in found[0]]
    assert len(set(rates[WARM_UP:])) > 2


def test_a_number_that_python_reads_once_is_found_here(simulate, monkeypatch):
    """As a learning rate by optimizers that are not fused: it stays what it was in the step that was captured."""
    monkeypatch.setattr(optim, "_fused", lambda groups: None)
    plain, _ = trained(pretext("rotnet"), batches(WARM_UP + 4), "off")
    simulate()
    found, _ = trained(pretext("rotnet"), batches(WARM_UP + 4), "on")
    assert_same_bits(found[: WARM_UP + 1], plain[: WARM_UP + 1])
    assert float(found[-1]["loss"]) != float(plain[-1]["loss"])


def test_auto_measures_before_it_captures(simulate):
    plain, used, said = trained(pretext("rotnet"), batches(STEPS), "off"), simulate(), []
    assert_same_bits(trained(pretext("rotnet"), batches(STEPS), "auto", said.append), plain)
    assert (used[0].ran, used[0].measured, used[0].replayed) == (WARM_UP, MEASURED, 3) and said == []


@pytest.mark.parametrize("modes", [("off", "auto"), ("auto", "off"), ("auto", "auto")])
@pytest.mark.parametrize("replayed", [False, True])
@pytest.mark.parametrize("task", ["rotnet", "byol"])
@pytest.mark.slow
def test_a_run_continues_with_graphs_or_without(task, modes, replayed, simulate):
    """From a checkpoint in the midst of replays, or before there are any."""
    given, stop = batches(2 * STEPS), STEPS
    options = {"steps": 2 * STEPS, "optim": halved(Optim(optimizer="adamw"))}
    whole = trained(pretext(task), given, "off", **options)
    if replayed:
        simulate()
    first = trained(pretext(task), given[:stop], modes[0], **options)
    found = trained(pretext(task, seed=1), given[stop:], modes[1], start=first[1], **options)
    assert_same_bits((first[0] + found[0], found[1]), whole)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (
            {"error": RuntimeError("operation not permitted when stream is capturing\nmore")},
            "not permitted when stream",
        ),
        ({"error": torch.OutOfMemoryError("CUDA out of memory")}, "memory is too small"),
        ({"share": 0.3}, "after 30% of its time"),
    ],
)
def test_auto_goes_on_without_a_graph(options, why, simulate):
    plain, used, said = trained(pretext("rotnet"), batches(STEPS), "off"), simulate(**options), []
    assert_same_bits(trained(pretext("rotnet"), batches(STEPS), "auto", said.append), plain)
    assert used[0].replayed == 0 and len(said) == 1 and why in said[0] and "\n" not in said[0]


@pytest.mark.parametrize(
    ("error", "raised"),
    [(RuntimeError("cannot\nmore"), UserError), (torch.OutOfMemoryError("no"), torch.OutOfMemoryError)],
)
def test_on_fails_where_a_step_cannot_be_captured(error, raised, simulate):
    simulate(error=error)
    with pytest.raises(raised) as found:
        trained(pretext("rotnet"), batches(STEPS), "on")
    assert "\n" not in str(found.value)


class Moves(nn.Module):
    """Remembers in new memory at each step."""

    def __init__(self, stage: nn.Module):
        super().__init__()
        self.stage = stage
        self.register_buffer("mean", torch.zeros(()))
        self.history = []

    def forward(self, x):
        x = self.stage(x)
        self.history.append(self.mean)  # or its memory might be taken again
        self.mean = x.detach().mean()
        return x


@pytest.mark.parametrize(
    ("wrap", "why"),
    [
        (Moves, "instead of writing in place"),
        (lambda stage: nn.Sequential(stage, nn.Dropout(0.5)), "draws random numbers on the CPU"),
    ],
)
def test_encoders_that_a_replay_would_get_wrong_are_found(wrap, why, simulate):
    """Dropout here stands for a layer that is dropped or not by a number of the CPU: on a GPU it draws there."""

    def model():
        found = pretext("rotnet")
        found.encoder.stages[1] = wrap(found.encoder.stages[1])
        return found

    plain, static = (trained(model(), batches(STEPS), mode) for mode in ("off", "auto"))
    assert_same_bits(static[0], plain[0])
    used, said = simulate(), []
    found = trained(model(), batches(STEPS), "auto", said.append)
    assert used[0].replayed == 0 and len(said) == 1 and why in said[0]
    assert_same_bits(found[0], plain[0])
    with pytest.raises(UserError, match=why):
        trained(model(), batches(STEPS), "on")


def test_batches_of_another_size_are_computed_without_the_graph(simulate):
    given = batches(WARM_UP + 2) + batches(2, count=3) + batches(1)
    plain, used, said = trained(pretext("byol"), given, "off"), simulate(), []
    assert_same_bits(trained(pretext("byol"), given, "on", said.append), plain)
    assert used[0].replayed == 3 and said == ["a batch of 3 images is trained on without the CUDA graph of 4"]


@pytest.mark.parametrize(
    ("options", "device", "workers", "why"),
    [
        ({}, "cuda", 1, None),
        ({"grad_accumulation": 2, "precision": "bf16"}, "cuda", 1, None),
        ({}, "cpu", 1, "a CPU has none"),
        ({}, "cuda", 2, "several workers"),
        ({"optim": Optim(optimizer="lars")}, "cuda", 1, "--optimizer lars"),
        ({"compile": True}, "cuda", 1, "--compile"),
        ({"activation_checkpointing": True}, "cuda", 1, "--activation-checkpointing"),
    ],
)
def test_what_cannot_be_captured_is_known_before(options, device, workers, why):
    plan = TrainConfig(**{"steps": 1, "seed": 0, "optim": Optim(), **options})
    found = why_no_graph(plan, pretext("rotnet").task, device, workers)
    assert found is None if why is None else why in str(found)


def test_auto_trains_as_off_where_an_optimizer_cannot_be_captured():
    said, options = [], {"optim": Optim(optimizer="lars", lr=0.01)}
    plain, found = (trained(pretext("rotnet"), batches(2), mode, said.append, **options) for mode in ("off", "auto"))
    assert_same_bits(found, plain)
    assert said == ["no CUDA graph: a CPU has none"]
    with pytest.raises(UserError, match="--cuda-graphs on: a CPU has none"):
        trained(pretext("rotnet"), batches(1), "on")
