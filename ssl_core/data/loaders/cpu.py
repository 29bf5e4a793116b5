"""The loader that decodes and cuts images on the CPU, by threads of this process."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import local

import numpy as np
import torch
from torch import Tensor

from ssl_core.data.batch import Batch
from ssl_core.data.decoding.crops import Buffer, CropRequest, crop_resize, min_side
from ssl_core.data.loaders.base import EncodedLoader, decoding_threads

PREFETCH_BATCHES = 2  # batches that are under way or ready before the training step wants them
IMAGES_PER_TASK = 8  # images that a thread decodes and cuts at a time: few enough to stay in its cache


class CpuLoader(EncodedLoader):
    """Decodes each image when it is wanted, with nothing but the CPU; a large JPEG at a half, quarter or eighth."""

    def read(self, requests: Iterable[CropRequest]) -> Iterator[Batch]:
        """Yields a batch in the CPU's memory, pinned if the device is a GPU, for each request."""
        requests, buffers = iter(requests), local()
        pending: deque[tuple[CropRequest, Tensor, list[Future]]] = deque()
        with decoding_threads(self.threads) as workers:
            while True:
                while len(pending) <= PREFETCH_BATCHES and (wanted := next(requests, None)) is not None:
                    pending.append((wanted, *self._submit(workers, buffers, wanted)))
                if not pending:
                    return
                wanted, images, pieces = pending.popleft()
                reasons = [reason for piece in pieces for reason in piece.result()]
                yield self.batch(
                    wanted, images, {row: reason for row, reason in enumerate(reasons) if reason is not None}
                )

    def _submit(self, workers: ThreadPoolExecutor, buffers: local, wanted: CropRequest) -> tuple[Tensor, list[Future]]:
        shape = (len(wanted), self.size, self.size, 3)
        images = torch.empty(shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        piece = max(1, min(IMAGES_PER_TASK, -(-len(wanted) // self.threads)))
        parts = ((i, min(i + piece, len(wanted))) for i in range(0, len(wanted), piece))
        return images, [workers.submit(decode_into, self, buffers, wanted.part(*p), images[slice(*p)]) for p in parts]


def decode_into(loader: EncodedLoader, buffers: local, wanted: CropRequest, images: Tensor) -> list[str | None]:
    """Decodes and cuts some images in this thread.

    Args:
        loader: The split and the side of the crops.
        buffers: Keeps each thread's memory for the next call.
        wanted: The request.
        images: [b, size, size, 3] uint8, which is filled; an image that cannot be decoded becomes black.

    Returns:
        For each image why it cannot be decoded, or None.

    Raises:
        StorageError: If the images' store fails.
    """
    buffer = buffers.__dict__.setdefault("mine", Buffer())
    buffer.clear()
    enough = min_side(loader.size, wanted.min_area)
    reasons = [buffer.decode(loader.split, id, enough) for id in wanted.ids.tolist()]
    images[:] = crop_resize(torch.from_numpy(buffer.memory), np.array(buffer.regions), wanted.boxes, loader.size)
    return reasons
