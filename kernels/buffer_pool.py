"""Memory for large CPU outputs, used again: fresh pages from the system cost several times what filling them does."""

import math
import weakref
from collections import deque

import numpy as np
import torch

WORTH = 2**20  # bytes: below, the C library itself keeps memory for the next call
KEPT = 2**29  # bytes that lie unused at most; beyond, the oldest go back to the system
ALIGNMENT = 64

# Appending and popping are atomic: a block comes back on whichever thread drops the last tensor on it.
_unused: deque[np.ndarray] = deque()


def _keep(block: np.ndarray) -> None:
    _unused.append(block)
    while sum(each.size for each in _unused.copy()) > KEPT:
        _unused.popleft()


def _block(size: int) -> np.ndarray:
    for _ in range(len(_unused)):
        try:
            block = _unused.popleft()
        except IndexError:  # another thread took the last
            break
        if block.size == size:
            return block
        _unused.append(block)
    return np.empty(size, np.uint8)


def empty(shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format) -> torch.Tensor:
    """Allocates a tensor on the CPU, in memory that is used again once no tensor, view or array refers to it any more.

    Args:
        shape: Of the tensor; of four dimensions for torch.channels_last.
        dtype: Of the tensor.
        layout: torch.contiguous_format or torch.channels_last.

    Returns:
        An uninitialized tensor, as `torch.empty` gives it; one below WORTH bytes comes from there.
    """
    size = math.prod(shape) * dtype.itemsize
    if size < WORTH:
        return torch.empty(shape, dtype=dtype, device="cpu", memory_format=layout)
    block = _block(size + ALIGNMENT)
    start = -block.ctypes.data % ALIGNMENT
    lent = block[start : start + size]  # an object of its own, which dies with the tensor's storage
    weakref.finalize(lent, _keep, block).atexit = False
    storage = torch.frombuffer(lent, dtype=torch.uint8).untyped_storage()
    strides = torch.empty(shape, device="meta", memory_format=layout).stride()
    return torch.empty(0, dtype=dtype, device="cpu").set_(storage, 0, shape, strides)
