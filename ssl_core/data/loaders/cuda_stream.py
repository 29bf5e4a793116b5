"""Makes the next batches on a CUDA stream of their own, at the same time as the training step's work."""

from collections.abc import Iterator

import torch

from ssl_core.data.batch import Batch
from ssl_core.data.loaders.prefetch import prefetch


def prefetch_on_stream(batches: Iterator[Batch], device: torch.device, depth: int) -> Iterator[Batch]:
    """Makes batches ahead in a thread whose work on the GPU waits for no training step.

    Args:
        batches: What to make; its errors are raised here, in their turn.
        device: The GPU.
        depth: How many batches are made ahead.

    Yields:
        The same batches, ready for the current stream.
    """
    for batch, ready in prefetch(_on_own_stream(batches, device), depth):
        here = torch.cuda.current_stream(device)
        here.wait_event(ready)
        for field in batch:  # its memory may be used again only when the step is done with it, too
            field.record_stream(here)
        yield batch


def _on_own_stream(batches: Iterator[Batch], device: torch.device) -> Iterator[tuple]:
    """Yields each batch and the event after which it is there."""
    stream = torch.cuda.Stream(device)
    while True:
        with torch.cuda.stream(stream):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch, stream.record_event()
