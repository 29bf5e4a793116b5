"""Encoded images that are decoded once and then stay on the device, from where every batch is cut in one launch."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image

from kernels.dispatch import alone
from ssl_core.data.crops import Buffer, Wanted, cut, least
from ssl_core.data.encoded import EncodedLoader
from ssl_core.data.source import Encoded, Packed
from ssl_core.task import Batch

PIECE = 64  # images that a thread decodes at a time
SAMPLE = 16  # images by which the size of all is judged
ANY = (1.0, 0.0, 0.0)  # a box: whichever may be drawn later


class ResidentLoader(EncodedLoader):
    """Reads all images when the first batch is asked for, and keeps them as small as they can be without enlarging
    any crop for it."""

    images: torch.Tensor | None = None  # flat uint8 on the device

    def read(self, requests: Iterable[list[Wanted]]) -> Iterator[Batch]:
        if self.images is None:
            self._decode()
        for wanted in requests:
            ids = torch.tensor([one.id for one in wanted], dtype=torch.int64)
            cropped = cut(self.images, self.places[ids], wanted, self.size)
            yield self.batch(wanted, cropped, [self.reasons[id] for id in ids.tolist()])

    def _decode(self) -> None:
        def piece(ids: np.ndarray) -> tuple[torch.Tensor, list, list]:
            buffer = Buffer()
            reasons = []
            for id in ids.tolist():
                reasons.append(buffer.add(self.split, Wanted(id, 0, ANY), self.size))
                _shrink(buffer, self.size)
            return torch.from_numpy(buffer.memory[: buffer.end]).to(self.device), buffer.places, reasons

        count = len(self.split)
        with ThreadPoolExecutor(self.threads, "decodes", initializer=alone) as pool:
            pieces = list(pool.map(piece, np.array_split(np.arange(count), -(-count // PIECE))))
        starts = np.cumsum([0, *(len(pixels) for pixels, _, _ in pieces)])
        self.places = torch.tensor([place for _, found, _ in pieces for place in found])
        self.places[:, 0] += torch.from_numpy(starts[:-1].repeat([len(found) for _, found, _ in pieces]))
        self.reasons = [reason for _, _, found in pieces for reason in found]
        self.images = torch.cat([pixels for pixels, _, _ in pieces])


def sample(split: Encoded) -> list[int]:
    """Some of its images from everywhere; those that have to be fetched, from one shard, which are shuffled."""
    count = min(SAMPLE, len(split))
    windowed = isinstance(split, Packed) and split.windowed
    return list(range(count)) if windowed else np.linspace(0, len(split) - 1, count, dtype=np.int64).tolist()


def _shrink(buffer: Buffer, size: int) -> None:
    """Makes the last image's shorter side as short as it may be."""
    start, height, width = buffer.places[-1]
    short, enough = min(height, width), least(size, Wanted(0, 0, ANY))
    if short > enough:
        image = Image.fromarray(buffer.memory[start : buffer.end].reshape(height, width, 3))
        height, width = (round(side * enough / short) for side in (height, width))
        buffer.drop()
        buffer.room(height, width)[:] = image.resize((width, height), Image.LANCZOS, reducing_gap=3.0)
        buffer.keep(height, width)


def bytes_needed(split: Encoded, size: int) -> int:
    """About how much memory `split` takes when it is resident, judged by some of its images that can be read."""
    pixels, buffer = [], Buffer()
    for id in sample(split):
        buffer.clear()
        if buffer.add(split, Wanted(id, 0, ANY), size) is None:
            _shrink(buffer, size)
            pixels.append(buffer.end)
    return round(len(split) * sum(pixels) / max(1, len(pixels)))
