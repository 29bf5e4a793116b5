"""What the loaders of encoded images share: who asks for what, and what becomes of images that fail."""

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
from ssl_core.data.dataset import Encoded
from ssl_core.data.decoding.crops import CropRequest, center_crops, random_crops
from ssl_core.data.loaders.arrays import split_evenly
from ssl_core.data.loaders.shard_prefetch import prefetch_shards
from ssl_core.data.sampler import Sampler, batch_positions
from ssl_core.storage.retry import cancel_event, cancel_on

SLICES_PER_DRAW = 16  # slices


class Skipped(set[str]):
    """The names of images that could not be decoded. `warn` hears of each once, on one line."""

    def __init__(self, warn: Callable[[str], None] | None):
        self.warn = warn or (lambda message: print(f"warning: {message}", file=sys.stderr, flush=True))

    def record(self, name: str, reason: str) -> None:
        if name not in self:
            self.add(name)
            shown = repr(name)[1:-1]  # one line whatever the name holds; Pillow and the system quote it so as well
            self.warn(f"skipped, {reason if shown in reason else f'{shown}: {reason}'}")


class EncodedLoader:
    """Reads `split` at side `size` with `threads` threads. `warn` hears of each image that cannot be decoded, once."""

    prompt = True  # whether batches are there when they are asked for, or take too little time to be made ahead
    resident = False  # whether every image is read once, before the first batch

    def __init__(
        self, split: Encoded, size: int, device: torch.device, threads: int, warn: Callable[[str], None] | None = None
    ):
        self.split, self.size, self.device, self.threads = split, size, device, max(1, threads)
        self.labels = torch.from_numpy(split.labels)
        self.skipped = Skipped(warn)

    def read(self, requests: Iterable[CropRequest]) -> Iterator[Batch]:
        """A batch for each request, read ahead; an image that fails is black and has weight 0."""
        raise NotImplementedError

    def training(self, order: Sampler, batch: int, steps: range, rank: int, world: int) -> Iterator[Batch]:
        """Without the images that could not be decoded, which would be black and disturb batch norm; if none could,
        one of them stands for all, with weight 0."""

        def slices() -> Iterator[np.ndarray]:
            return (batch_positions(step, batch, rank, world) for step in steps)

        wanted = crop_requests(order, slices())
        if not self.resident:
            wanted = (one for one, _ in zip(wanted, prefetch_shards(self.split, order, slices())))
        for read in self.read(wanted):
            yield self._to_device(_without_failed(read))

    def evaluation(self, ids: np.ndarray) -> Iterator[Batch]:
        """The images `ids`, in order, by their central squares."""
        for read in self.read(center_crops(chunk) for chunk in split_evenly(np.asarray(ids))):
            yield self._to_device(read)

    def batch(self, wanted: CropRequest, images: Tensor, failed: dict[int, str]) -> Batch:
        """The batch of `images`; names those that have failed, for the reason that stands under their row."""
        ids, weights = torch.from_numpy(wanted.ids), torch.ones(len(wanted))
        for row, reason in failed.items():
            self.skipped.record(self.split.name(int(ids[row])), reason)
            weights[row] = 0
        return Batch(images, ids, torch.from_numpy(wanted.epochs), weights, self.labels[ids])

    def _to_device(self, batch: Batch) -> Batch:
        return Batch(*(field.to(self.device, non_blocking=True) for field in batch))


@contextmanager
def decoding_threads(threads: int) -> Iterator[ThreadPoolExecutor]:
    """Threads for decoding, which use no others, and give up on a store as soon as the pool is left."""
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


def crop_requests(order: Sampler, slices: Iterator[np.ndarray]) -> Iterator[CropRequest]:
    """What is wanted at each slice of positions; drawn for several at once, for less work."""
    while block := list(islice(slices, SLICES_PER_DRAW)):
        wanted = random_crops(order, np.concatenate(block))
        ends = np.cumsum([len(positions) for positions in block]).tolist()
        yield from (wanted.part(start, end) for start, end in pairwise([0, *ends]))


def _without_failed(batch: Batch) -> Batch:
    good = batch.weights > 0
    if good.all():
        return batch
    good[0] |= not good.any()
    return Batch(*(part[good.to(part.device)] for part in batch))
