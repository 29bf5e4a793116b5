"""Encoded images, decoded and cut on the CPU by threads of this process."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import local

import numpy as np
import torch
from torch import Tensor

from ssl_core.data.batch import Batch
from ssl_core.data.decoding.crops import Buffer, Wanted, cut, least
from ssl_core.data.loaders.base import EncodedLoader, pool

AHEAD = 2  # batches that are under way or ready before the training step wants them
PIECE = 8  # images that a thread decodes and cuts at a time: few enough to stay in its cache


class TorchLoader(EncodedLoader):
    """Reads with nothing but the CPU, a large JPEG at a half, a quarter or an eighth."""

    def read(self, requests: Iterable[Wanted]) -> Iterator[Batch]:
        requests, buffers = iter(requests), local()
        pending: deque[tuple[Wanted, Tensor, list[Future]]] = deque()
        with pool(self.threads) as workers:
            while True:
                while len(pending) <= AHEAD and (wanted := next(requests, None)) is not None:
                    pending.append((wanted, *self._begin(workers, buffers, wanted)))
                if not pending:
                    return
                wanted, images, pieces = pending.popleft()
                reasons = [reason for piece in pieces for reason in piece.result()]
                yield self.batch(wanted, images, {row: said for row, said in enumerate(reasons) if said is not None})

    def _begin(self, workers: ThreadPoolExecutor, buffers: local, wanted: Wanted) -> tuple[Tensor, list[Future]]:
        shape = (len(wanted), self.size, self.size, 3)
        images = torch.empty(shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        piece = max(1, min(PIECE, -(-len(wanted) // self.threads)))
        parts = ((i, min(i + piece, len(wanted))) for i in range(0, len(wanted), piece))
        return images, [workers.submit(decoded, self, buffers, wanted.part(*p), images[slice(*p)]) for p in parts]


def decoded(loader: EncodedLoader, buffers: local, wanted: Wanted, images: Tensor) -> list[str | None]:
    """Fills `images` [b, size, size, 3] with what is wanted -> for each the reason why it failed, or None."""
    buffer = buffers.__dict__.setdefault("mine", Buffer())
    buffer.clear()
    reasons = [buffer.add(loader.split, id, least(loader.size, wanted.whole)) for id in wanted.ids.tolist()]
    images[:] = cut(torch.from_numpy(buffer.memory), np.array(buffer.places), wanted.boxes, loader.size)
    return reasons
