"""What the loaders of encoded images share: the requests, and what becomes of images that cannot be decoded."""

import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice, pairwise
from threading import Event

import numpy as np
import torch
from torch import Tensor

from kernels.cpu_threads import single_threaded
from ssl_core.data.batch import Batch
from ssl_core.data.decoding.crops import MIN_AREA, CropRequest, center_crops, random_crops
from ssl_core.data.loaders.arrays import MAX_CHUNK, split_evenly
from ssl_core.data.loaders.shard_prefetch import prefetch_shards
from ssl_core.data.sampler import Sampler, batch_positions
from ssl_core.data.split import Split
from ssl_core.storage.retry import cancel_event, cancel_on

SLICES_PER_DRAW = 16  # slices of the order for which crops are drawn at once


class Skipped(set[str]):
    """The set of names of images that could not be decoded.

    Args:
        warn: Called once for each, with a message of one line; None: it is printed on stderr.
    """

    def __init__(self, warn: Callable[[str], None] | None):
        self.warn = warn or (lambda message: print(f"warning: {message}", file=sys.stderr, flush=True))

    def record(self, name: str, reason: str) -> None:
        """Adds the name of an image and warns of it, if it is new."""
        if name not in self:
            self.add(name)
            shown = repr(name)[1:-1]  # one line whatever the name holds; Pillow and the system quote it so as well
            self.warn(f"skipped, {reason if shown in reason else f'{shown}: {reason}'}")


class EncodedLoader:
    """The base of the loaders of encoded images; a loader defines `read`.

    Args:
        split: The images.
        size: The side of the crops in pixels.
        device: Where batches are delivered.
        threads: How many threads decode, at least one.
        warn: Called once for each image that cannot be decoded, with a message; None: it is printed on stderr.
        min_area: The smallest area of a training crop, as a share of the area of the image's largest square.

    Attributes:
        prompt: Whether a batch is ready when it is asked for, or takes too little time to be made ahead.
        resident: Whether every image is read once, before the first batch.
        skipped: Names of the images that could not be decoded.
    """

    prompt = True
    resident = False

    def __init__(
        self,
        split: Split,
        size: int,
        device: torch.device,
        threads: int,
        warn: Callable[[str], None] | None = None,
        min_area: float = MIN_AREA,
    ):
        self.split, self.size, self.device, self.threads = split, size, device, max(1, threads)
        self.min_area = min_area
        self.labels = torch.from_numpy(split.labels)
        self.skipped = Skipped(warn)

    def read(self, requests: Iterable[CropRequest]) -> Iterator[Batch]:
        """Yields a batch for each request, read ahead, on any device; an image that fails is black, with weight 0."""
        raise NotImplementedError

    def training(self, order: Sampler, batch: int, steps: range, rank: int, world: int) -> Iterator[Batch]:
        """Yields the batches that a worker trains on, random crops.

        Images that could not be decoded are left out, since black ones would disturb batch norm; if none could, one of
        them stays, with weight 0.

        Args:
            order: The order of the images.
            batch: Images of a global batch.
            steps: Numbers of the global batches.
            rank: Of the worker.
            world: How many workers share a global batch.

        Yields:
            The worker's part of each global batch.

        Raises:
            StorageError: If a store fails for longer than is waited for.
        """

        def slices() -> Iterator[np.ndarray]:
            return (batch_positions(step, batch, rank, world) for step in steps)

        wanted = crop_requests(order, slices(), self.min_area)
        if not self.resident:
            wanted = (one for one, _ in zip(wanted, prefetch_shards(self.split, order, slices())))
        for read in self.read(wanted):
            yield self._to_device(_without_failed(read))

    def evaluation(self, ids: np.ndarray, most: int = MAX_CHUNK) -> Iterator[Batch]:
        """Yields the central squares of the images `ids`, [n] int64, in their order, at most `most` in a batch; their
        epoch is 0."""
        for read in self.read(center_crops(chunk) for chunk in split_evenly(np.asarray(ids), most)):
            yield self._to_device(read)

    def batch(self, wanted: CropRequest, images: Tensor, failed: dict[int, str]) -> Batch:
        """Makes a batch, and records the images that could not be decoded.

        Args:
            wanted: The request.
            images: [b, size, size, 3] uint8, what was asked for.
            failed: The reasons why images could not be decoded, by their rows in the batch.

        Returns:
            The batch, in which the failed images have weight 0.
        """
        ids, weights = torch.from_numpy(wanted.ids), torch.ones(len(wanted))
        for row, reason in failed.items():
            self.skipped.record(self.split.name(int(ids[row])), reason)
            weights[row] = 0
        return Batch(images, ids, torch.from_numpy(wanted.epochs), weights, self.labels[ids])

    def _to_device(self, batch: Batch) -> Batch:
        return Batch(*(field.to(self.device, non_blocking=True) for field in batch))


@contextmanager
def decoding_threads(threads: int) -> Iterator[ThreadPoolExecutor]:
    """Provides a pool of threads for decoding, each of which computes alone.

    Args:
        threads: How many.

    Yields:
        The pool. When the block ends, its threads give up what they wait for in a store.
    """
    outer = cancel_event()
    closed = outer or Event()

    def initialize() -> None:
        single_threaded()
        cancel_on(closed)

    workers = ThreadPoolExecutor(threads, "decodes", initializer=initialize)
    try:
        yield workers
    finally:
        if outer is None:
            closed.set()
        workers.shutdown(cancel_futures=True)


def crop_requests(order: Sampler, slices: Iterator[np.ndarray], min_area: float = MIN_AREA) -> Iterator[CropRequest]:
    """Draws the random crops at slices of positions, for several slices at once, which is less work.

    Args:
        order: The order of the images.
        slices: Positions in it, each [b] int64.
        min_area: The smallest area of a crop, as a share of the largest square's.

    Yields:
        The request for each slice.
    """
    while block := list(islice(slices, SLICES_PER_DRAW)):
        wanted = random_crops(order, np.concatenate(block), min_area)
        ends = np.cumsum([len(positions) for positions in block]).tolist()
        yield from (wanted.part(start, end) for start, end in pairwise([0, *ends]))


def _without_failed(batch: Batch) -> Batch:
    good = batch.weights > 0
    if good.all():
        return batch
    good[0] |= not good.any()
    return Batch(*(part[good.to(part.device)] for part in batch))
