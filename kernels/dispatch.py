"""What the kernels share: argument checks, output tensors, normalisation, and the list of all kernels."""

import functools
import importlib
import os
import pkgutil
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from kernels import buffer_pool as memory

# Read once: triton decides at decoration time whether its kernels are interpreted.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
PIXEL_DTYPES = (torch.uint8, torch.float32, torch.bfloat16, torch.float16)
INTEGER_DTYPES = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
LARGEST = 1e38  # of a mean or std: float32 ends soon after
PARTS = 8  # of the work, for each thread
FAR = 2**40  # pixels: no image reaches so far, and sums of such coordinates cannot overflow
WORTH_THREADS = 100_000  # outputs: below, handing work to a thread costs more than it saves
_THREAD = threading.local()
_BITS = {torch.bfloat16: torch.int16, torch.float16: torch.int16}


@dataclass(frozen=True)
class Build:
    """One ahead-of-time compilation of a Triton kernel.

    function: the jitted kernel; types: Triton type by runtime argument (pointers are taken to be 16-byte
    aligned); constants: value by constexpr argument; warps: per program; elements: outputs that a program
    writes (in one pass of its loop, if it has one); budget: most machine instructions that a thread may have
    for each of its elements; vectorised: whether the stores of this build must be as wide as 16 bytes.
    """

    function: object
    types: Mapping[str, str]
    constants: Mapping[str, object]
    warps: int
    elements: int = 1
    budget: float = 0.0
    vectorised: bool = True


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


def pick(kernel_triton: Callable, kernel_cpu: Callable, images: torch.Tensor) -> Callable:
    """The implementation that runs on the device of `images`."""
    return kernel_triton if images.is_cuda or INTERPRETED else kernel_cpu


def check_tensor(name: str, value: object) -> None:
    """Raise ValueError unless value is a tensor."""
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"{name}: got {value!r}; expected a torch.Tensor")


def check_images(images: torch.Tensor) -> None:
    """Raise ValueError unless images is uint8 [b, h, w, c], h and w >= 1, c 1 or 3, h*w*c < 2^31."""
    check_tensor("images", images)
    if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[3] not in (1, 3):
        raise ValueError(
            f"images: got {images.dtype} {list(images.shape)}; expected torch.uint8 [b, h, w, c], c 1 or 3"
        )
    if not 0 < images.shape[1] * images.shape[2] * images.shape[3] < 2**31:
        raise ValueError(f"images: got {list(images.shape)}; expected h, w >= 1 and h*w*c < 2^31")


def check_bytes(name: str, value: torch.Tensor) -> None:
    """Raise ValueError unless value is uint8 [n]."""
    check_tensor(name, value)
    if value.dtype != torch.uint8 or value.dim() != 1:
        raise ValueError(f"{name}: got {value.dtype} {list(value.shape)}; expected torch.uint8 [n]")


def check_size(name: str, size: int, images: torch.Tensor) -> None:
    """Raise ValueError unless size is in 1..min(h, w) of the images."""
    limit = min(images.shape[1], images.shape[2])
    if not isinstance(size, int) or not 1 <= size <= limit:
        raise ValueError(f"{name}: got {size!r}; expected an int in 1..{limit}, the images' shorter side")


def check_integers(name: str, labels: torch.Tensor, shape: tuple[int, ...], device: torch.device) -> None:
    """Raise ValueError unless labels is an integer (or bool) tensor of that shape on that device."""
    check_tensor(name, labels)
    if labels.dtype not in INTEGER_DTYPES or tuple(labels.shape) != tuple(shape) or labels.device != device:
        raise ValueError(
            f"{name}: got {labels.dtype} {list(labels.shape)} on {labels.device};"
            f" expected an integer tensor {list(shape)} on {device}"
        )


def check_output(channels: int | None, mean, std, dtype: torch.dtype) -> tuple[list[float], list[float]]:
    """(mean, std) as lists of floats. Raise ValueError unless they hold one number per channel (None: 1 or 3, as mean
    has), std > 0, both finite as float32 and std's inverse too, and dtype is supported."""
    if dtype not in PIXEL_DTYPES:
        raise ValueError(f"dtype: got {dtype}; expected one of {', '.join(map(str, PIXEL_DTYPES))}")
    means, stds = _numbers(mean), _numbers(std)
    if len(means) not in ((channels,) if channels else (1, 3)) or not all(abs(value) <= LARGEST for value in means):
        raise ValueError(f"mean: got {mean!r}; expected {channels or '1 or 3'} numbers, one per channel")
    if len(stds) != len(means) or not all(1 / LARGEST <= value <= LARGEST for value in stds):
        raise ValueError(f"std: got {std!r}; expected {len(means)} numbers > 0, one per channel")
    return means, stds


def _numbers(values) -> list[float]:
    try:
        return [float(value) for value in values]
    except (TypeError, ValueError):
        return []


def allocate(images: torch.Tensor, shape: tuple[int, ...], dtype: torch.dtype, channels_last: bool) -> torch.Tensor:
    """An uninitialised [n, c, h, w] tensor on the images' device, in NCHW or channels_last memory order."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    if type(images) is torch.Tensor and images.device.type == "cpu":  # neither fake nor traced
        return memory.empty(shape, dtype, layout)
    return torch.empty(shape, dtype=dtype, device=images.device, memory_format=layout)


def float32(value: float) -> float:
    """The value rounded to float32."""
    return float(np.float32(value))


@functools.lru_cache(maxsize=64)
def _scales(mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(float32(m) for m in mean), tuple(float32(1 / s) for s in std)


def scales(mean: list[float], std: list[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, 1/std), each rounded to float32."""
    return _scales(tuple(mean), tuple(std))


def scalars(mean: list[float], std: list[float]) -> tuple[float, ...]:
    """(m0, m1, m2, s0, s1, s2): the scales as a Triton kernel takes them; one channel fills all three."""
    means, inverses = scales(mean, std)
    return (*(means * 3)[:3], *(inverses * 3)[:3])


def normalise(pixels: torch.Tensor, mean: list[float], std: list[float], dtype: torch.dtype) -> torch.Tensor:
    """The reference: uint8 [n, c, h, w] to dtype; to a float, (float32(pixel) - mean[c]) * inv_std[c]."""
    if dtype == torch.uint8:
        return pixels
    means, inverses = (
        torch.tensor(v, dtype=torch.float32, device=pixels.device).view(-1, 1, 1) for v in scales(mean, std)
    )
    return ((pixels.to(torch.float32) - means) * inverses).to(dtype)


@functools.lru_cache(maxsize=64)
def _table(mean: tuple[float, ...], std: tuple[float, ...], dtype: torch.dtype) -> np.ndarray:
    every = torch.arange(256, dtype=torch.uint8, device="cpu").expand(len(mean), 1, 256)
    values = normalise(every, mean, std, dtype).reshape(len(mean), 256).contiguous()
    return values.view(_BITS.get(dtype, dtype)).numpy()


def table(mean: list[float], std: list[float], dtype: torch.dtype) -> np.ndarray:
    """[c, 256]: the output of each pixel value, for a CPU loop to look up (16-bit floats as int16)."""
    return _table(tuple(mean), tuple(std), dtype)


def flat(tensor: torch.Tensor) -> np.ndarray:
    """The memory of a dense tensor as a 1-D array (16-bit floats as int16), shared with it."""
    return tensor.as_strided((tensor.numel(),), (1,)).view(_BITS.get(tensor.dtype, tensor.dtype)).numpy()


@functools.lru_cache(maxsize=1)
def _threads(process: int, count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count)


def alone() -> None:
    """The current thread does all work of the CPU loops that it calls itself from now on: one of many that do."""
    _THREAD.alone = True


def over_rows(loop: Callable, rows: int, elements: int, *arguments) -> None:
    """Run loop(first, last, *arguments) over 0..rows-1: in as many threads as torch uses, where `elements`
    outputs are work enough and this thread is not `alone`. The loop must release the GIL, and its rows must not
    depend on each other."""
    shared = elements >= WORTH_THREADS and not getattr(_THREAD, "alone", False)
    count = min(torch.get_num_threads(), rows) if shared else 1
    # In parts, because a thread may be slower than its neighbour: torch's own threads spin for a while after an op.
    parts = min(rows, count * min(PARTS, max(elements // WORTH_THREADS, 1))) if count > 1 else 1
    left = list(pairwise([rows * i // parts for i in range(parts + 1)]))

    def work() -> None:
        while left:
            try:
                part = left.pop()
            except IndexError:  # another thread took the last
                return
            loop(*part, *arguments)

    # a pool for each process: threads do not survive a fork
    others = [_threads(os.getpid(), count - 1).submit(work) for _ in range(count - 1)]
    work()
    for other in others:
        other.cancel() or other.result()


def array(labels: torch.Tensor) -> np.ndarray:
    """Integer labels as a contiguous int64 array: one type, so that a CPU loop compiles once."""
    return labels.to(torch.int64).contiguous().numpy()


def places(labels: torch.Tensor) -> torch.Tensor:
    """Coordinates as int64, those further out than FAR drawn in to it."""
    return labels.to(torch.int64).clamp(-FAR, FAR)


def loadable(labels: torch.Tensor) -> torch.Tensor:
    """Integer labels as a Triton kernel can load them: contiguous, bool as uint8."""
    labels = labels.contiguous()
    return labels.view(torch.uint8) if labels.dtype == torch.bool else labels
