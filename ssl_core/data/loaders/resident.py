"""Encoded images that are decoded once and then stay on the device, from where every batch is cut in one launch."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from PIL import Image

from ssl_core.data.batch import Batch
from ssl_core.data.dataset import Encoded, Packed
from ssl_core.data.decoding.crops import Buffer, Wanted, cut, least
from ssl_core.data.loaders.base import EncodedLoader, pool

PIECE = 64  # images that a thread decodes at a time
SAMPLE = 16  # images by which the size of all is judged


class ResidentLoader(EncodedLoader):
    """Reads all images when the first batch is asked for, and keeps them as small as they can be without enlarging
    any crop for it."""

    resident = True
    images: torch.Tensor | None = None  # flat uint8 on the device

    def read(self, requests: Iterable[Wanted]) -> Iterator[Batch]:
        if self.images is None:
            self._decode()
        for wanted in requests:
            cropped = cut(self.images, self.places[wanted.ids], wanted.boxes, self.size)
            rows = np.flatnonzero(self.failed[wanted.ids]).tolist()
            yield self.batch(wanted, cropped, {row: self.reasons[int(wanted.ids[row])] for row in rows})

    def _decode(self) -> None:
        def piece(ids: np.ndarray) -> tuple[torch.Tensor, np.ndarray, list[str | None]]:
            buffer = Buffer()
            reasons = [_add(buffer, self.split, id, self.size) for id in ids.tolist()]
            return torch.tensor(buffer.memory[: buffer.end]), np.array(buffer.places), reasons

        count = len(self.split)
        with pool(self.threads) as workers:
            pieces = list(workers.map(piece, np.array_split(np.arange(count), -(-count // PIECE))))
        self.places = np.concatenate([places for _, places, _ in pieces])
        reasons = [reason for _, _, found in pieces for reason in found]
        self.reasons = {id: reason for id, reason in enumerate(reasons) if reason is not None}
        self.failed = np.array([reason is not None for reason in reasons])
        images = torch.empty(sum(len(pixels) for pixels, _, _ in pieces), dtype=torch.uint8, device=self.device)
        start = id = 0
        while pieces:  # one after the other, so that the images are in memory twice at no time
            pixels, places, _ = pieces.pop(0)
            images[start : start + len(pixels)] = pixels
            self.places[id : id + len(places), 0] += start
            start, id = start + len(pixels), id + len(places)
        self.images = images


def sample(split: Encoded) -> list[int]:
    """Some of its images from everywhere; those that have to be fetched, from one shard, which are shuffled."""
    count = min(SAMPLE, len(split))
    windowed = isinstance(split, Packed) and split.windowed
    return list(range(count)) if windowed else np.linspace(0, len(split) - 1, count, dtype=np.int64).tolist()


def _add(buffer: Buffer, split: Encoded, id: int, size: int) -> str | None:
    """buffer.add, with the image's shorter side as short as crops of any part allow."""
    enough = least(size, whole=False)
    reason = buffer.add(split, id, enough)
    start, height, width = buffer.places[-1]
    short = min(height, width)
    if short > enough:
        image = Image.fromarray(buffer.memory[start : buffer.end].reshape(height, width, 3))
        height, width = (round(side * enough / short) for side in (height, width))
        buffer.drop()
        buffer.room(height, width)[:] = image.resize((width, height), Image.LANCZOS, reducing_gap=3.0)
        buffer.keep(height, width)
    return reason


def bytes_needed(split: Encoded, size: int) -> int:
    """About how much memory `split` takes when it is resident, judged by some of its images that can be read."""
    pixels, buffer = [], Buffer()
    for id in sample(split):
        buffer.clear()
        if _add(buffer, split, id, size) is None:
            pixels.append(buffer.end)
    return round(len(split) * sum(pixels) / max(1, len(pixels)))
