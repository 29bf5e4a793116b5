"""Encoded images, decoded and cut on the CPU by threads of this process."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import local

import torch
from torch import Tensor

from kernels.dispatch import alone
from ssl_core.data.crops import Buffer, Wanted, cut
from ssl_core.data.encoded import EncodedLoader
from ssl_core.task import Batch

AHEAD = 2  # batches that are under way or ready before the training step wants them
PIECE = 8  # images that a thread decodes and cuts at a time: few enough to stay in its cache


class TorchLoader(EncodedLoader):
    """Reads with nothing but the CPU, a large JPEG at a half, a quarter or an eighth."""

    def read(self, requests: Iterable[list[Wanted]]) -> Iterator[Batch]:
        pool = ThreadPoolExecutor(self.threads, "decodes", initializer=alone)
        requests, buffers = iter(requests), local()
        pending: deque[tuple[list[Wanted], Tensor, list[Future]]] = deque()
        try:
            while True:
                while len(pending) <= AHEAD and (wanted := next(requests, None)) is not None:
                    pending.append((wanted, *self._begin(pool, buffers, wanted)))
                if not pending:
                    return
                wanted, images, pieces = pending.popleft()
                yield self.batch(wanted, images, [reason for piece in pieces for reason in piece.result()])
        finally:
            pool.shutdown(cancel_futures=True)

    def _begin(self, pool: ThreadPoolExecutor, buffers: local, wanted: list[Wanted]) -> tuple[Tensor, list[Future]]:
        shape = (len(wanted), self.size, self.size, 3)
        images = torch.empty(shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        piece = min(PIECE, -(-len(wanted) // self.threads))
        starts = range(0, len(wanted), piece) if wanted else ()
        return images, [
            pool.submit(decoded, self, buffers, wanted[i : i + piece], images[i : i + piece]) for i in starts
        ]


def decoded(loader: EncodedLoader, buffers: local, wanted: list[Wanted], images: Tensor) -> list[str | None]:
    """Fills `images` [b, size, size, 3] with what is wanted -> for each the reason why it failed, or None."""
    buffer = buffers.__dict__.setdefault("mine", Buffer())
    buffer.clear()
    reasons = [buffer.add(loader.split, one, loader.size) for one in wanted]
    images[:] = cut(torch.from_numpy(buffer.memory), torch.tensor(buffer.places), wanted, loader.size)
    return reasons
