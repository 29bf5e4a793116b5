"""Activation checkpointing: the same bits from less memory."""

import pytest
import torch
import torch.multiprocessing as processes
from support.checkpointed import SIZES, trained, worker
from support.synthetic_images import FORMAT, batch_of, pretext
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

import ssl_core.encoders.build as encoders
from kernels.random import RandomBits
from ssl_core.activation_checkpointing import check_blocks, checkpoint_blocks, find_blocks
from ssl_core.errors import UserError


def assert_same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert not [name for name in one if not torch.equal(one[name], other[name])]


@pytest.mark.parametrize("encoder", SIZES)
@pytest.mark.parametrize("options", [{}, {"grad_accumulation": 3, "precision": "bf16"}], ids=["whole", "parts, bf16"])
@pytest.mark.slow
def test_weights_and_buffers_are_the_same_bits(encoder, options):
    without, found = trained(encoder, False, **options), trained(encoder, True, **options)
    assert_same_bits(without, found)
    counters = [value for name, value in found.items() if name.endswith("num_batches_tracked")]
    assert all(value == 3 * options.get("grad_accumulation", 1) for value in counters)
    assert bool(counters) == (encoder != "vit-small-images")


@pytest.mark.parametrize("task", ["mae", "simclr", "byol"])
@pytest.mark.slow
def test_tasks_that_drop_tokens_or_call_the_encoder_twice_train_the_same(task):
    assert_same_bits(trained("vit-small-images", False, task), trained("vit-small-images", True, task))


@pytest.mark.slow
def test_workers_that_train_together_have_the_same_bits(tmp_path):
    """Of networks with batch norm and without, in parts, between which gradients are not exchanged."""
    trained_together = ("convnet", "vit-small-images", "test_resnet")
    processes.spawn(worker, args=(2, trained_together, str(tmp_path)), nprocs=2)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        for encoder in trained_together:
            assert_same_bits(found[encoder, False], found[encoder, True])


class OfAList(nn.Sequential):
    """A block that is given a list, as DenseNets' layers are."""

    def forward(self, input):
        return super().forward(input[0])


class Noisy(nn.Module):
    """Two blocks with dropout, and batch norm that averages all batches alike."""

    def __init__(self, overwrites: bool = False):
        super().__init__()
        self.blocks = nn.ModuleList()
        for _ in range(2):
            layers = (nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3, momentum=None), nn.Dropout(0.5))
            self.blocks.append(OfAList(*layers, nn.Conv2d(3, 3, 1), nn.ReLU()))
        self.overwrites = overwrites

    def forward(self, x):
        x = x * 1.0
        for block in self.blocks:
            given, x = x, block([x])
            if self.overwrites:
                given.mul_(2)
        return x


def gradients(module: Noisy) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    module(torch.linspace(-1, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8)).square().sum().backward()
    assert torch.rand(1) > 0  # what is drawn later is the same as well
    return {**module.state_dict(), **{f"{name}.grad": p.grad for name, p in module.named_parameters()}}


def test_dropout_drops_the_same_again_and_any_momentum_is_kept():
    torch.manual_seed(0)
    one = Noisy()
    torch.manual_seed(0)
    other = Noisy()
    checkpoint_blocks(other)
    assert_same_bits(gradients(one), gradients(other))


def test_an_input_that_is_overwritten_is_no_silent_error():
    module = Noisy(overwrites=True)
    checkpoint_blocks(module)
    with pytest.raises(UserError, match="OfAList of this encoder is given is overwritten"):
        gradients(module)


class Made(TorchDispatchMode):
    """Knows all memory that operations have made, and which of it is still held."""

    def __init__(self):
        super().__init__()
        self.made: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for one in found if isinstance(found, (list, tuple)) else [found]:
            if isinstance(one, torch.Tensor):
                held = StorageWeakRef(one.untyped_storage())
                self.made[held.cdata] = (held, one.untyped_storage().nbytes())
        return found

    def held(self) -> int:
        return sum(size for reference, size in self.made.values() if not reference.expired())


def bytes_between_forward_and_backward(encoder: str, checkpointing: bool) -> int:
    model, batch = pretext("rotnet", encoder, SIZES[encoder]).train(), batch_of(4, SIZES[encoder])
    inputs, targets = model.task.make_batch(batch, RandomBits(batch.ids, batch.epochs, 0), FORMAT)
    if checkpointing:
        checkpoint_blocks(model.encoder)
    with Made() as memory:
        loss = model.task.loss(model(inputs), targets).sum()
        held = memory.held()
        loss.backward()
    return held


@pytest.mark.parametrize(("encoder", "share"), [("convnet", 0.5), ("vit-small-images", 0.25), ("test_resnet", 0.5)])
def test_less_memory_waits_for_the_backward_pass(encoder, share):
    """Not only what autograd saves: everything that is still held, the inputs of blocks among it."""
    without, found = (bytes_between_forward_and_backward(encoder, on) for on in (False, True))
    assert 0 < found < share * without


def test_blocks_are_those_of_the_literature():
    kinds = {
        name: [type(one).__name__ for one in find_blocks(encoders.build(name, 64, 0))] for name in ("resnet18", "nin")
    }
    assert kinds == {"resnet18": ["BasicBlock"] * 8, "nin": ["Sequential"] * 4}


def test_blocks_with_hooks_are_left_alone():
    module = Noisy()
    module.blocks[0][0].register_forward_hook(lambda *_: None)
    assert find_blocks(module) == [module.blocks[1]]
    with pytest.raises(UserError, match="'vgg11' has no blocks"):
        check_blocks(encoders.build("vgg11", 64, 0), "vgg11")
