"""What only a GPU can show of training: that compiled and replayed steps are those that are not."""

from dataclasses import replace

import pytest
import torch
from support.synthetic_images import FORMAT, batch_of, pretext
from torch import Tensor, nn

import ssl_core.cuda_graph as cuda_graph
from ssl_core.data.batch import Batch
from ssl_core.optim import CAPTURABLE, Optim
from ssl_core.task import PretextModel, tasks
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


def batches(steps: range) -> list[Batch]:
    return [Batch(*(field.cuda() for field in batch_of(16, epoch=step))) for step in steps]


def on_gpu(task: str, drop: bool = False) -> PretextModel:
    model = pretext(task)
    if drop:
        model.encoder.stages[1] = nn.Sequential(model.encoder.stages[1], nn.Dropout(0.25))
    return model.to("cuda", memory_format=torch.channels_last)


def state_after(model: PretextModel, steps: range, graphs: str, start=None, **options) -> tuple[list[float], dict]:
    """-> the loss of each step, and the state after the last."""
    optim = Optim(optimizer="adamw", lr=1e-4, warmup=0.0)
    plan = TrainConfig(**{"steps": STEPS, "seed": 0, "optim": optim, "cuda_graphs": graphs, **options})
    found = list(train(model, batches(steps), FORMAT, plan, start))
    return [float(step.metrics["loss"]) for step in found], found[-1].state()


def differences(one: dict, other: dict) -> list[str]:
    """The names of weights and buffers that are not the same bits."""
    return [name for name, value in one["model"].items() if not torch.equal(value, other["model"][name])]


@pytest.fixture
def replays(monkeypatch) -> list[torch.cuda.CUDAGraph]:
    """-> graphs, one for each of their replays."""
    seen, replay = [], torch.cuda.CUDAGraph.replay

    def counted(graph):
        seen.append(graph)
        replay(graph)

    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", counted)
    return seen


def assert_replays_are_the_steps(make, monkeypatch, replays: list, **options) -> None:
    """Of the same steps, some replayed and none: the same bits, if they are when nothing is replayed twice."""
    monkeypatch.setattr(cuda_graph, "WARM_UP", STEPS)
    eager, again = (state_after(make(), range(STEPS), "on", **options) for _ in range(2))
    assert replays == []
    monkeypatch.setattr(cuda_graph, "WARM_UP", 3)
    replayed = state_after(make(), range(STEPS), "on", **options)
    assert len(replays) == STEPS - 3 and all(graph is replays[0] for graph in replays)
    assert replayed[0] == pytest.approx(eager[0], rel=1e-3)
    if not differences(eager[1], again[1]):
        assert not differences(eager[1], replayed[1])
    plain = state_after(make(), range(STEPS), "off", **options)
    assert replayed[0] == pytest.approx(plain[0], rel=1e-3)


@pytest.mark.parametrize("task", tasks())
@pytest.mark.parametrize("options", [{}, {"grad_accumulation": 2, "precision": "bf16"}], ids=["whole", "parts, bf16"])
def test_a_replayed_step_is_the_step(task, options, monkeypatch, replays):
    assert_replays_are_the_steps(lambda: on_gpu(task), monkeypatch, replays, **options)


@pytest.mark.parametrize("optimizer", CAPTURABLE)
def test_a_replayed_optimizer_follows_its_schedule(optimizer, monkeypatch, replays):
    """And clips, and drops what the seed of each step says."""
    optim = Optim(optimizer=optimizer, lr=1e-3, warmup=0.5, clip_grad_norm=0.1)
    assert_replays_are_the_steps(lambda: on_gpu("rotnet", drop=True), monkeypatch, replays, optim=optim)


@pytest.mark.parametrize("task", ["rotnet", "byol", "npid"])
def test_a_replayed_run_continues(task, replays):
    """From a state in the midst of replays, in steps that are replayed only later, to the same bits if it can."""
    whole = [state_after(on_gpu(task, drop=True), range(2 * STEPS), "on", steps=2 * STEPS) for _ in range(2)]
    losses, state = state_after(on_gpu(task, drop=True), range(STEPS), "on", steps=2 * STEPS)
    kept = {"step": state["step"], **{name: _copy(state[name]) for name in ("model", "optimizer")}}
    rest, found = state_after(on_gpu(task, drop=True), range(STEPS, 2 * STEPS), "on", start=kept, steps=2 * STEPS)
    assert losses + rest == pytest.approx(whole[0][0], rel=1e-3) and len({id(graph) for graph in replays}) == 4
    if not differences(whole[0][1], whole[1][1]):
        assert not differences(whole[0][1], found)


def _copy(state):
    if isinstance(state, Tensor):
        return state.detach().cpu()
    if isinstance(state, dict):
        return {name: _copy(value) for name, value in state.items()}
    return [_copy(value) for value in state] if isinstance(state, list) else state


def test_a_step_that_waits_for_the_gpu_is_trained_without_a_graph(replays):
    """Capturing fails, which leaves everything as it was before."""

    class Waits(nn.Module):
        def forward(self, x):
            return x * (1.0 if float(x.detach().sum()) != 0 else 2.0)

    def model() -> PretextModel:
        found = on_gpu("rotnet")
        found.encoder.stages[1] = nn.Sequential(found.encoder.stages[1], Waits())
        return found

    said, optim, count = [], Optim(lr=1e-3), cuda_graph.WARM_UP + cuda_graph.MEASURED + 4
    given, found = batches(range(count)), []
    for graphs in ("off", "auto"):
        plan = TrainConfig(steps=count, seed=0, optim=optim, cuda_graphs=graphs)
        found.append([float(one.metrics["loss"]) for one in train(model(), given, FORMAT, plan, warn=said.append)])
    assert found[1] == pytest.approx(found[0], rel=1e-3) and replays == []
    assert len(said) == 1 and said[0].startswith("no CUDA graph: ")
