"""Each kind of bad argument to each kernel: the ValueError names the argument, its value and what is accepted."""

import inspect
import re

import pytest
import torch
from support.example_variants import names, public, rows

from kernels import registry

pytestmark = pytest.mark.slow


def worse(name, value, first):
    """(bad value, how the message shows it) for one argument of a good call."""
    if isinstance(value, torch.Tensor):
        yield None, "None"
        yield value.tolist(), "["
        yield value.double(), "torch.float64"
        yield value[..., None], str([*value.shape, 1])
        if not first:  # what says which batch and device the others must have
            longer = torch.cat([value, value[:1]])
            yield longer, str(list(longer.shape))
            yield value.to("meta"), "meta"
    if name == "images":
        for shape in ([2, 8, 8, 2], [2, 0, 8, 3], [2, 8, 0, 3], [8, 8, 3], [1, 2**15, 2**15, 3]):
            yield torch.zeros([1] * len(shape), dtype=torch.uint8).expand(shape), str(shape)
    elif name in ("mean", "std"):
        yield [*value, 1.0], str([*value, 1.0])
        yield [], "[]"
        yield None, "None"
        yield "none", "none"
        yield [float("inf"), *value[1:]], "inf"
        yield [float("nan"), *value[1:]], "nan"
    elif name == "dtype":
        yield torch.float64, "torch.float64"
        yield torch.int32, "torch.int32"
    elif type(value) is int:
        yield -1, "-1"
        yield 2**40, str(2**40)
    if name == "std":
        for bad in (0.0, -1.0, 1e-60):
            yield [bad, *value[1:]], str(bad)
    if name == "sizes":
        for bad in ([], 8, None):
            yield bad, str(bad)
        for bad in (0, -1, 2**40, 4.0):
            yield [*value[1:], bad], str(bad)
    if name == "counts":
        for bad in ([*value, 1], [], [*value[1:], -1], [*value[1:], 1.0], None):
            yield bad, str(bad)
    if name in ("size", "tile"):
        yield 0, "0"
        yield 4.0, "4.0"
        yield "4", "'4'"


def bad_calls():
    for kernel in registry.kernels():
        for name, value in arguments(kernel).items():
            optional = inspect.signature(public(kernel)).parameters[name].default is None
            for index, (bad, shown) in enumerate(worse(name, value, name in (names(kernel)[0], "regions"))):
                if optional and bad is None:
                    continue
                yield pytest.param(kernel, name, bad, shown, id=f"{kernel.name}-{name}-{index}")


def arguments(kernel):
    """A good call whose batch is not empty."""
    calls = (dict(zip(names(kernel), example)) for example in kernel.examples(torch.Generator().manual_seed(0)))
    return next(call for call in calls if rows(kernel, call) > 1)


@pytest.mark.parametrize(("kernel", "name", "bad", "shown"), list(bad_calls()))
def test_names_the_argument_its_value_and_what_is_accepted(kernel, name, bad, shown):
    with pytest.raises(ValueError, match=f"^{name}: got .*{re.escape(shown)}.*; expected ."):
        public(kernel)(**arguments(kernel) | {name: bad})
