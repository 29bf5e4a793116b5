"""Encoded images: torch's DataLoader decodes in processes of its own, in the order it is told."""

import sys
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from kernels.sampling import Draw, uniform
from ssl_core.data.decode import UNREADABLE, read_image, square
from ssl_core.data.memory import chunks
from ssl_core.data.order import Order, slice_of
from ssl_core.data.source import Encoded
from ssl_core.task import Batch

MIN_SCALE = 0.25  # of the largest square's area: how small a training crop may be
Request = list[tuple[int, int, tuple[float, float, float] | None]]  # (id, epoch, box) of each image of a batch


class Decoder(Dataset):
    """Answers a request with (images, ids, epochs, weights, reasons); a file that fails is black with weight 0."""

    def __init__(self, split: Encoded, size: int):
        self.split, self.size = split, size

    def __getitem__(self, request: Request):
        images = np.zeros((len(request), self.size, self.size, 3), np.uint8)
        weights, reasons = np.ones(len(request), np.float32), {}
        for row, (id, _, box) in enumerate(request):
            # a crop of a quarter of the area is half as wide: decode twice as large as it is delivered
            shrink_to = self.size * (2 if box else 1)
            try:
                images[row] = square(read_image(self.split.read(id), shrink_to), self.size, box)
            except UNREADABLE as error:
                weights[row], reasons[id] = 0, str(error) or type(error).__name__
        ids, epochs = (np.array([r[i] for r in request], np.int64) for i in (0, 1))
        return *(torch.from_numpy(a) for a in (images, ids, epochs, weights)), reasons


class TorchLoader:
    """Reads `split` at side `size` with `processes` decoding processes (0: in this one). `warn` hears of each file
    that cannot be decoded, once."""

    def __init__(
        self, split: Encoded, size: int, device: torch.device, processes: int, warn: Callable[[str], None] | None = None
    ):
        self.split, self.device, self.processes = split, device, processes
        self.warn = warn or (lambda said: print(f"warning: {said}", file=sys.stderr, flush=True))
        self.labels = torch.from_numpy(split.labels)
        self.decoder = Decoder(split, size)
        self.skipped: set[str] = set()

    def training(self, order: Order, batch: int, steps: range, rank: int, world: int) -> Iterator[Batch]:
        """Without the images that could not be decoded, which would be black and disturb batch norm; if none could,
        one of them stands for all, with weight 0."""
        for batch_read in self._read(_crops(order, slice_of(step, batch, rank, world)) for step in steps):
            yield Batch(*(t.to(self.device, non_blocking=True) for t in _decoded(batch_read)))

    def whole(self, ids: np.ndarray) -> Iterator[Batch]:
        for batch_read in self._read([(int(id), 0, None) for id in chunk] for chunk in chunks(ids)):
            yield Batch(*(t.to(self.device, non_blocking=True) for t in batch_read))

    def _read(self, requests: Iterator[Request]) -> Iterator[Batch]:
        loader = DataLoader(
            self.decoder, batch_size=None, sampler=_Requests(requests), num_workers=self.processes,
            pin_memory=self.device.type == "cuda", prefetch_factor=4 if self.processes else None,
        )  # fmt: skip
        for images, ids, epochs, weights, reasons in loader:
            for id, reason in reasons.items():
                self._skip(self.split.name(id), reason)
            yield Batch(images, ids, epochs, weights, self.labels[ids])

    def _skip(self, name: str, reason: str) -> None:
        if name not in self.skipped:
            self.skipped.add(name)
            shown = repr(name)[1:-1]  # one line whatever the name holds; Pillow and the system quote it so as well
            self.warn(f"skipped, {reason if shown in reason else f'{shown}: {reason}'}")


def _decoded(batch: Batch) -> Batch:
    good = batch.weights > 0
    if good.all():
        return batch
    good[0] |= not good.any()
    return Batch(*(part[good] for part in batch))


class _Requests(torch.utils.data.Sampler):
    """A stream of requests in the shape that DataLoader takes."""

    def __init__(self, requests: Iterator[Request]):
        self.requests = requests

    def __iter__(self):
        return iter(self.requests)


def _crops(order: Order, positions: np.ndarray) -> Request:
    """Each image with the box that its id and epoch draw, whichever loader or worker reads it."""
    ids, epochs = order.at(positions)
    words = Draw(torch.from_numpy(ids), torch.from_numpy(epochs), order.seed).words("crop", 3)
    scale, y, x = uniform(words).double().unbind(1)
    boxes = zip((MIN_SCALE + (1 - MIN_SCALE) * scale).tolist(), y.tolist(), x.tolist())
    return [(int(id), int(epoch), box) for id, epoch, box in zip(ids, epochs, boxes)]
