"""A kernel's examples in other shapes, memory layouts, integer types and label values, for any kernel there is."""

import inspect
from collections.abc import Callable
from random import Random

import torch

from kernels import checks, registry

# Labels of which the kernels define every value; the others keep the values of their example.
ANY_VALUE = {"rotations", "flips", "grays", "offsets", "boxes", "corners", "shifts", "permutations", "ids", "epochs"}
BITS = (1, 3, 5, 7, 63)
MEAN, STD = [-20.3, 127.5, 299.0], [0.1, 3.0, 1000.0]


def names(kernel: registry.Kernel) -> list[str]:
    """What the operator calls its arguments."""
    return [argument.name for argument in kernel.op._opoverload._schema.arguments]


def public(kernel: registry.Kernel) -> Callable:
    """The function that checks the arguments and calls the operator; it has the operator's name, in its module."""
    return getattr(inspect.getmodule(kernel.op._init_fn), kernel.name)


def rows(kernel: registry.Kernel, arguments: dict) -> int:
    """How many images (or ids) a call is about: as many as its first argument has, or as it says where they lie."""
    return len(arguments.get("regions", arguments[names(kernel)[0]]))


def several(result) -> tuple[torch.Tensor, ...]:
    """What a kernel returns, as a tuple also where it is one tensor."""
    return (result,) if isinstance(result, torch.Tensor) else tuple(result)


def example(kernel: registry.Kernel, random: Random) -> dict:
    """One example by argument name; the examples' last few have shapes that their seed decides."""
    examples = list(kernel.examples(torch.Generator().manual_seed(random.getrandbits(32))))
    return dict(zip(names(kernel), random.choice(examples), strict=True))


def vary(kernel: registry.Kernel, random: Random) -> dict:
    """One example with its means, labels, integer types and strides changed."""
    arguments = example(kernel, random)
    for name, value in arguments.items():
        if name in ("mean", "std") and random.choice((False, True)):
            arguments[name] = {"mean": MEAN, "std": STD}[name][-len(value) :]
        if isinstance(value, torch.Tensor):
            is_label = name != "images" and value.dtype in checks.INTEGER_DTYPES
            value = relabeled(value, name in ANY_VALUE, random) if is_label else value
            arguments[name] = relaid(value, random)
    return arguments


def relabeled(labels: torch.Tensor, free: bool, random: Random) -> torch.Tensor:
    """The labels in another integer type; with other values, too, if they are free to have any."""
    if free and random.choice((False, True)):
        bits, generator = random.choice(BITS), torch.Generator().manual_seed(random.getrandbits(32))
        labels = torch.randint(-(2**bits), 2**bits - 1, labels.shape, generator=generator)
    held = [dtype for dtype in checks.INTEGER_DTYPES if free or torch.equal(labels.to(dtype).long(), labels.long())]
    return labels.to(random.choice(held))


def relaid(tensor: torch.Tensor, random: Random) -> torch.Tensor:
    """The same values in another place of memory, or the first row of a batch for all of it."""
    # what a kernel that ignores the strides would read
    wrong = tensor.flatten().flip(0).reshape(tensor.shape)
    layout = random.choice(("plain", "backwards", "one row", "odd start", *range(tensor.dim() + 1)))
    if layout == "plain":
        return tensor
    if layout == "backwards":  # the dimensions, as they lie in memory
        order = tuple(reversed(range(tensor.dim())))
        return tensor.permute(order).contiguous().permute(order)
    if layout == "one row":
        return tensor[:1].expand(tensor.shape)
    if layout == "odd start":
        return torch.cat([wrong.flatten()[:1], tensor.flatten()])[1:].reshape(tensor.shape)
    return torch.stack([wrong, tensor], layout).select(layout, 1)  # every second element or row
