"""The loader of small datasets: all images stay on the device as uint8, and a batch is one gather."""

from collections.abc import Iterator

import numpy as np
import torch

from ssl_core.data.batch import Batch
from ssl_core.data.sampler import Sampler, batch_positions
from ssl_core.data.split import Split

MAX_CHUNK = 500  # most images in a batch that is not trained on


def split_evenly(ids: np.ndarray, most: int = MAX_CHUNK) -> list[np.ndarray]:
    """Splits ids, in their order, into batches for evaluation.

    Args:
        ids: [n] integers.
        most: Images of a batch, at most.

    Returns:
        Parts of at most `most` that differ by one at most, since batch norm cannot use a batch of one.
    """
    return np.array_split(ids, max(1, -(-len(ids) // most)))


class ArrayLoader:
    """Holds decoded images on a device.

    Args:
        split: A split whose images are in memory.
        device: Where they are kept and batches are delivered.
    """

    skipped: frozenset[str] = frozenset()  # decoded images cannot fail
    prompt = True

    def __init__(self, split: Split, device: torch.device):
        self.labels = torch.from_numpy(np.array(split.labels))
        # a read-only memory map would make torch warn that the tensor must not be written; nothing here writes
        self.images = torch.from_numpy(np.array(split.pixels)).to(device)
        self.device = device

    def training(self, order: Sampler, batch: int, steps: range, rank: int, world: int) -> Iterator[Batch]:
        """Yields the batches that a worker trains on.

        Args:
            order: The order of the images.
            batch: Images of a global batch.
            steps: Numbers of the global batches.
            rank: Of the worker.
            world: How many workers share a global batch.

        Yields:
            The worker's part of each global batch, whole images.
        """
        for step in steps:
            yield self._batch(*order.at(batch_positions(step, batch, rank, world)))

    def evaluation(self, ids: np.ndarray, most: int = MAX_CHUNK) -> Iterator[Batch]:
        """Yields the images `ids`, [n] int64, in their order, at most `most` in a batch; their epoch is 0."""
        for chunk in split_evenly(ids, most):
            yield self._batch(chunk, np.zeros_like(chunk))

    def _batch(self, ids: np.ndarray, epochs: np.ndarray) -> Batch:
        rows = torch.from_numpy(ids)
        weights = torch.ones(len(ids), device=self.device)
        device_ids = [t.to(self.device, non_blocking=True) for t in (rows, torch.from_numpy(epochs), self.labels[rows])]
        return Batch(self.images[device_ids[0]], device_ids[0], device_ids[1], weights, device_ids[2])
