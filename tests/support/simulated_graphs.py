"""CUDA graphs without a GPU: operations are recorded once and then run again on the same memory, without Python."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only


def tensors(value) -> list[Tensor]:
    return [one for one in tree_leaves(value) if isinstance(one, Tensor)]


class Recorded(TorchDispatchMode):
    """Keeps every operation on tensors with what it was given and what it gave: numbers as they were, and memory."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        # the same memory with the shape that it has now, which operations such as squeeze_ change
        given = tree_map_only(Tensor, Tensor.detach, (args, kwargs or {}))
        found = func(*args, **(kwargs or {}))
        if tensors((given, found)):
            own = {one.untyped_storage().data_ptr() for one in tensors(given)}
            new = [one.untyped_storage().data_ptr() not in own for one in tensors(found)]  # neither view nor in place
            self.calls.append((func, given, [one.detach() for one in tensors(found)], new))
        return found

    @torch.no_grad()
    def replay(self) -> None:
        """Runs the operations again, each with its results where they were."""
        for func, (args, kwargs), results, new in self.calls:
            for result, is_new, value in zip(results, new, tensors(func(*args, **kwargs)), strict=True):
                if is_new:
                    result.copy_(value)


class SimulatedStream:
    """Takes the place of a CudaStream on a CPU: what it captures changes nothing until it is replayed.

    Args:
        state: Returns all tensors that a step leaves for the next one.
        share: What it measures.
        error: What a capture raises.
    """

    def __init__(self, state: Callable[[], list[Tensor]], share: float = 1.0, error: Exception | None = None):
        self.state, self.share, self.error = state, share, error
        self.ran = self.measured = self.replayed = 0

    def run(self, function: Callable[[], Tensor]) -> Tensor:
        self.ran += 1
        return function()

    def measure(self, function: Callable[[], Tensor]) -> tuple[Tensor, float]:
        self.measured += 1
        return function(), self.share

    def capture(self, function: Callable[[], Tensor]) -> Callable[[], Tensor]:
        if self.error:
            raise self.error
        before = [one.detach().clone() for one in self.state()]
        with Recorded() as recorded:
            values = function()
        with torch.no_grad():
            values.fill_(torch.nan)
            for one, was in zip(self.state(), before, strict=True):
                one.copy_(was)

        def replay() -> Tensor:
            self.replayed += 1
            recorded.replay()
            return values

        return replay


def assert_same_bits(one, other) -> None:
    """Of tensors in dicts, lists and tuples, and of plain values."""
    assert type(one) is type(other)
    if isinstance(one, Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same_bits(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for pair in zip(one, other):
            assert_same_bits(*pair)
    else:
        assert one == other
