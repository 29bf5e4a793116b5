"""Built-in tasks are what CUDA graphs need, as far as a CPU can show: their steps ask for no value of a tensor."""

from contextlib import nullcontext

import pytest
import torch
from support.synthetic_images import FORMAT, batch_of, pretext
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import ssl_core.optim as optim
from ssl_core.cuda_graph import addresses
from ssl_core.data.batch import Batch
from ssl_core.memory_bank import MemoryOptions
from ssl_core.optim import CAPTURABLE, Optim
from ssl_core.task import PretextModel, Task, tasks
from ssl_core.tasks.rotnet import RotNet
from ssl_core.training_step import TrainingStep

VARIANTS = [
    *((name, "convnet", {}) for name in tasks()),
    ("context", "resnet18", {"mask": "center"}),
    ("context", "convnet", {"mask": "blocks"}),
    ("rotnet", "convnet", {"rotations": "one"}),
    ("pirl", "convnet", {"transform": "jigsaw"}),
    ("pirl", "convnet", {"transform": "both", "memory": MemoryOptions(memory_warmup=0)}),
    ("npid", "nin", {"memory": MemoryOptions(memory_warmup=2)}),
    ("dino", "vit-small-images", {"local_crops": 0}),
    ("multi", "vit-small-images", {"tasks": tuple(name for name in tasks() if name != "multi")}),
]


class OnOneDevice(TorchDispatchMode):
    """Fails where a tensor lies on another device than all should.

    Args:
        device: That device's type.
    """

    def __init__(self, device: str):
        super().__init__()
        self.device, self.fused = device, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = args, kwargs or {}
        if "_fused_" in func.name():  # of which torch knows no result without a GPU
            self.fused.append((func.name(), given[1]["lr"]))
            found = None
        else:
            found = func(*args, **given[1])
        devices = {one.device.type for one in tree_leaves((given, found)) if isinstance(one, Tensor)}
        assert devices <= {self.device}, f"{func.name()} on {devices}"
        return found


def training_step(model: PretextModel, **options) -> TrainingStep:
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    return TrainingStep(
        model=model,
        ddp=None,
        forward=model,
        optimizer=optimizer,
        format=FORMAT,
        seed=0,
        **{"precision": "fp32", "grad_accumulation": 1, "clip_grad_norm": 1.0, **options},
    )


def step_without_values(model: PretextModel, monkeypatch) -> dict[str, Tensor]:
    """Runs a step with tensors that have shapes alone: what asks for a value, or for a shape that hangs on values,
    fails, and so does what makes a tensor on the CPU."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # it refuses this kind of device
    batch = Batch(*(field.to("meta") for field in batch_of(6)))
    progress = torch.zeros((), dtype=torch.float64, device="meta")
    step = training_step(model.to("meta").train(), grad_accumulation=2)
    with OnOneDevice("meta"):
        return step(batch, progress)


@pytest.mark.parametrize(("task", "encoder", "options"), VARIANTS)
@pytest.mark.slow
def test_a_step_waits_for_nothing(task, encoder, options, monkeypatch):
    found = step_without_values(pretext(task, encoder, **options), monkeypatch)
    assert {"loss", "weight", "grad_norm"} <= found.keys() and all(one.shape == () for one in found.values())


class Waits(RotNet):
    """Does in `make_batch` what a graph cannot hold."""

    how: str

    def make_batch(self, batch, bits, format):
        inputs, targets = super().make_batch(batch, bits, format)
        weights = batch.weights
        if self.how == "item":
            inputs = inputs * weights.sum().item()
        elif self.how == "bool":
            inputs = inputs if weights.sum() > 0 else -inputs
        elif self.how == "mask":
            inputs = torch.cat([inputs[: len(weights)][weights > 0], inputs])[-len(inputs) :]
        elif self.how == "to the CPU":
            inputs = inputs * weights.sum().cpu()
        elif self.how == "from the CPU":
            inputs = inputs * torch.tensor([2.0]).to(inputs.device)
        return inputs, targets


@pytest.mark.parametrize("how", ["item", "bool", "mask", "to the CPU", "from the CPU"])
def test_waiting_is_found(how, monkeypatch):
    model = pretext("rotnet")
    model.task.__class__ = Waits
    model.task.how = "not at all"
    step_without_values(model, monkeypatch)
    model.task.how = how
    with pytest.raises((RuntimeError, NotImplementedError, AssertionError)):
        step_without_values(model, monkeypatch)


def plain_values(model: nn.Module) -> dict:
    """What modules know beside tensors."""
    return {
        (path, name): value
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if not name.startswith("_") and isinstance(value, (int, float, bool, str, tuple, list, type(None)))
    }


@pytest.mark.parametrize(("task", "encoder", "options"), VARIANTS)
@pytest.mark.slow
def test_a_step_writes_in_place_and_counts_nothing_in_python(task, encoder, options):
    model = pretext(task, encoder, **options).train()
    step, progress = training_step(model), torch.tensor(0.5, dtype=torch.float64)
    step(batch_of(4), progress)
    memory, known = addresses([*model.parameters(), *model.buffers()]), plain_values(model)
    before = [one.detach().clone() for one in model.buffers()]
    step(batch_of(4, epoch=1), progress)
    assert addresses([*model.parameters(), *model.buffers()]) == memory and plain_values(model) == known
    if list(model.task.buffers()) and task in ("byol", "colorize", "dino", "npid", "pirl"):
        assert not all(map(torch.equal, before, model.buffers()))  # it does remember something


def test_tasks_say_so_of_themselves():
    """All built-in ones; a plug-in has to say it, and what is made of several is if all of them are."""
    assert not Task.capturable and all(pretext(name).task.capturable for name in tasks())
    multi = pretext("multi").task
    multi.parts["rotnet"].__class__ = type("Other", (RotNet,), {"capturable": False})
    assert not multi.capturable


@pytest.mark.parametrize("name", CAPTURABLE)
def test_fused_optimizers_read_the_learning_rate_on_the_device(name):
    with FakeTensorMode():
        module = nn.Linear(3, 4, device="cuda")
        optimizer, set_lr = optim.build_optimizer(Optim(optimizer=name), module, 10, capturable=True)
        rates = []
        for step in range(2):
            for weight in module.parameters():
                weight.grad = torch.ones_like(weight)
            with OnOneDevice("cuda") as seen:
                set_lr(step)
                optimizer.step()
            rates += [lr for _, lr in seen.fused]
        kept = [id(lr) for lr in rates]
    assert len(rates) == 4 and all(isinstance(lr, Tensor) and lr.dtype == torch.float32 for lr in rates)
    assert kept[:2] == kept[2:]  # in the same memory at each step
    assert all(group.get("capturable", True) for group in optimizer.param_groups)


@pytest.mark.parametrize("name", CAPTURABLE)
def test_a_learning_rate_is_a_number_in_checkpoints(name):
    module = nn.Linear(3, 4)
    optimizer, set_lr = optim.build_optimizer(Optim(optimizer=name, lr=0.3), module, 10, capturable=True)
    plain, set_plain = optim.build_optimizer(Optim(optimizer=name, lr=0.3), nn.Linear(3, 4), 10)
    for step in range(10):
        set_lr(step)
        set_plain(step)
        assert optim.state_dict(optimizer)["param_groups"] == plain.state_dict()["param_groups"]
    optim.load_state(plain, optim.state_dict(optimizer))
    optim.load_state(optimizer, plain.state_dict())
    assert isinstance(plain.param_groups[0]["lr"], float) and isinstance(optimizer.param_groups[0]["lr"], Tensor)
    set_lr(3)
    assert float(optimizer.param_groups[0]["lr"]) == optim.learning_rate(Optim(lr=0.3), 3, 10)
