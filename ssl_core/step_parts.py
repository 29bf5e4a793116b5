"""Names the parts of a training step in a profile by torch.profiler."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, TypeVar

import torch
from torch.profiler import record_function

T = TypeVar("T")
PREFIX = "step: "  # before the name of a part, in a profile
PARTS = {
    "data": "waiting for images",
    "batch": "making inputs and targets of them",
    "forward": "predictions and losses",
    "backward": "gradients, and waiting for other workers",
    "optimizer": "norm and clipping of gradients, and weights",
    "task": "what the task remembers, such as a teacher",
    "replay": "batch to task at once, as a CUDA graph",
}
NOTHING = nullcontext()


def part(
    name: Literal["data", "batch", "forward", "backward", "optimizer", "task", "replay"],
) -> AbstractContextManager:
    """Marks a block as a part of a step; while nothing is profiled this costs a quarter of a microsecond.

    Args:
        name: A key of PARTS.
    """
    profiled = torch.autograd._profiler_enabled()  # pyright: ignore[reportPrivateImportUsage]
    return record_function(PREFIX + name) if profiled else NOTHING


def fetched(items: Iterator[T]) -> Iterator[T]:
    """Yields items, each fetched in the part "data"."""
    while True:
        with part("data"):
            found = next(items, None)
        if found is None:
            return
        yield found
