"""The list of all kernels, each with its implementations."""

import importlib
import os
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kernels.tuning import Tunable

if TYPE_CHECKING:
    from triton.runtime import JITFunction

# Read once: triton decides at decoration time whether its kernels are interpreted.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@dataclass(frozen=True)
class Build:
    """One ahead-of-time compilation of a Triton kernel, and what its machine code must keep to.

    Attributes:
        function: The jitted kernel.
        types: The Triton type of each runtime argument, by name, a tuple for one that is a tuple; pointers are taken to
            be 16-byte aligned.
        constants: The value of each constexpr argument, by name.
        tunable: What its configuration was chosen from.
        warps: Warps of a program.
        elements: Outputs that a program writes (in one pass of its loop, if it has one, on average).
        budget: The most machine instructions that a thread may have for each of its elements, in the default
            configuration.
        vectorized: Whether the stores of this build must be as wide as 16 bytes.
    """

    function: "JITFunction"
    types: Mapping[str, str | tuple[str, ...]]
    constants: Mapping[str, object]
    tunable: Tunable
    warps: int
    elements: int = 1
    budget: float = 0.0
    vectorized: bool = True


@dataclass(frozen=True)
class Kernel:
    """A kernel's implementations, which agree bit for bit and take the same positional arguments.

    Attributes:
        name: Of the operator, and of the function that checks the arguments and calls it, in the operator's module.
        op: The registered operator.
        reference: Plain torch, on the CPU: the specification.
        triton: Launches the Triton kernel.
        cpu: Runs the compiled loop.
        examples: Yields tuples of operator arguments on the CPU, drawn from the generator that it is called with.
        tunables: Of its launches; `override` makes builds take other configurations than the default.
        builds: Yields what to compile ahead of time.
    """

    name: str
    op: Callable
    reference: Callable
    triton: Callable
    cpu: Callable
    examples: Callable[[torch.Generator], Iterator[tuple]]
    tunables: tuple[Tunable, ...]
    builds: Callable[[], Iterable[Build]]


def kernels() -> tuple[Kernel, ...]:
    """Returns all kernels: the `KERNELS` tuples of every module of this package, in order of module name."""
    package = importlib.import_module("kernels")
    modules = [importlib.import_module(f"kernels.{module.name}") for module in pkgutil.iter_modules(package.__path__)]
    return tuple(kernel for module in modules for kernel in getattr(module, "KERNELS", ()))


def choose_implementation(launch: Callable, run: Callable, images: torch.Tensor) -> Callable:
    """Chooses a kernel's implementation for a device.

    Args:
        launch: The one in Triton.
        run: The one for a CPU.
        images: Any tensor on the device.

    Returns:
        `launch` for a GPU, or anywhere under Triton's interpreter; else `run`.
    """
    return launch if images.is_cuda or INTERPRETED else run
