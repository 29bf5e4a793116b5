"""The list of all kernels, each with its implementations."""

import importlib
import os
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch

# Read once: triton decides at decoration time whether its kernels are interpreted.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@dataclass(frozen=True)
class Build:
    """One ahead-of-time compilation of a Triton kernel.

    function: the jitted kernel; types: Triton type by runtime argument (pointers are taken to be 16-byte
    aligned); constants: value by constexpr argument; warps: per program; elements: outputs that a program
    writes (in one pass of its loop, if it has one); budget: most machine instructions that a thread may have
    for each of its elements; vectorized: whether the stores of this build must be as wide as 16 bytes.
    """

    function: object
    types: Mapping[str, str]
    constants: Mapping[str, object]
    warps: int
    elements: int = 1
    budget: float = 0.0
    vectorized: bool = True


@dataclass(frozen=True)
class Kernel:
    """A kernel's implementations, which agree bit for bit and take the same positional arguments.

    name: of the operator; op: the registered operator; reference: plain torch, the specification;
    triton: launches the Triton kernel; cpu: runs the compiled loop; examples(generator): yields tuples of
    operator arguments on the CPU; builds: what to compile ahead of time.
    """

    name: str
    op: Callable
    reference: Callable
    triton: Callable
    cpu: Callable
    examples: Callable[[torch.Generator], Iterator[tuple]]
    builds: tuple[Build, ...] = ()


def kernels() -> tuple[Kernel, ...]:
    """All kernels: the `KERNELS` tuples of every module of this package, in order of module name."""
    package = importlib.import_module(__package__)
    modules = [importlib.import_module(f"{__package__}.{m.name}") for m in pkgutil.iter_modules(package.__path__)]
    return tuple(kernel for module in modules for kernel in getattr(module, "KERNELS", ()))


def choose_implementation(kernel_triton: Callable, kernel_cpu: Callable, images: torch.Tensor) -> Callable:
    """The implementation that runs on the device of `images`."""
    return kernel_triton if images.is_cuda or INTERPRETED else kernel_cpu
