"""The loader that decodes each image once and keeps it on the device, where every batch is cut in one launch."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from PIL import Image

from ssl_core.data.batch import Batch
from ssl_core.data.decoding.crops import MIN_AREA, Buffer, CropRequest, crop_resize, min_side
from ssl_core.data.loaders.base import EncodedLoader, decoding_threads
from ssl_core.data.split import Split

IMAGES_PER_TASK = 64  # images that a thread decodes at a time
SAMPLE_IMAGES = 16  # images from which the size of all is estimated


class ResidentLoader(EncodedLoader):
    """Reads all images when the first batch is asked for, and keeps them as small as no crop has to be enlarged for.

    Attributes:
        images: Flat uint8 on the device, all images one after the other; None before the first batch.
    """

    resident = True
    images: torch.Tensor | None = None

    def read(self, requests: Iterable[CropRequest]) -> Iterator[Batch]:
        """Yields a batch on the device for each request."""
        if self.images is None:
            self.images = self._decode()
        for wanted in requests:
            cropped = crop_resize(self.images, self.regions[wanted.ids], wanted.boxes, self.size)
            rows = np.flatnonzero(self.failed[wanted.ids]).tolist()
            yield self.batch(wanted, cropped, {row: self.reasons[int(wanted.ids[row])] for row in rows})

    def _decode(self) -> torch.Tensor:
        """Returns all images, flat; sets `regions`, `failed` and `reasons`."""

        def piece(ids: np.ndarray) -> tuple[torch.Tensor, np.ndarray, list[str | None]]:
            buffer = Buffer()
            reasons = [_decode_small(buffer, self.split, id, enough) for id in ids.tolist()]
            return torch.tensor(buffer.memory[: buffer.end]), np.array(buffer.regions), reasons

        count, enough = len(self.split), min_side(self.size, self.min_area)
        with decoding_threads(self.threads) as workers:
            pieces = list(workers.map(piece, np.array_split(np.arange(count), -(-count // IMAGES_PER_TASK))))
        self.regions = np.concatenate([regions for _, regions, _ in pieces])
        reasons = [reason for _, _, found in pieces for reason in found]
        self.reasons = {id: reason for id, reason in enumerate(reasons) if reason is not None}
        self.failed = np.array([reason is not None for reason in reasons])
        images = torch.empty(sum(len(pixels) for pixels, _, _ in pieces), dtype=torch.uint8, device=self.device)
        start = id = 0
        while pieces:  # one after the other, so that the images are in memory twice at no time
            pixels, regions, _ = pieces.pop(0)
            images[start : start + len(pixels)] = pixels
            self.regions[id : id + len(regions), 0] += start
            start, id = start + len(pixels), id + len(regions)
        return images


def sample_ids(split: Split) -> list[int]:
    """Selects images to estimate from: evenly spaced ones, or the first where shards, which are shuffled, are fetched.

    Args:
        split: The images.

    Returns:
        At most SAMPLE_IMAGES rows.
    """
    count = min(SAMPLE_IMAGES, len(split))
    return (
        list(range(count)) if split.fetched_shards() else np.linspace(0, len(split) - 1, count, dtype=np.int64).tolist()
    )


def _decode_small(buffer: Buffer, split: Split, id: int, enough: int) -> str | None:
    """Does what `buffer.decode` does, with the image's shorter side no longer than `enough` pixels."""
    reason = buffer.decode(split, id, enough)
    offset, height, width = buffer.regions[-1]
    short = min(height, width)
    if short > enough:
        image = Image.fromarray(buffer.memory[offset : buffer.end].reshape(height, width, 3))
        height, width = (round(side * enough / short) for side in (height, width))
        buffer.pop()
        buffer.reserve(height, width)[:] = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
        buffer.append(height, width)
    return reason


def bytes_needed(split: Split, size: int, min_area: float = MIN_AREA) -> int:
    """Estimates how much memory a split takes when it is resident, from some of its images that can be read.

    Args:
        split: The images.
        size: The side of the crops in pixels.
        min_area: The smallest area of a crop, as a share of the largest square's.

    Returns:
        Bytes.

    Raises:
        StorageError: If the images' store fails.
    """
    pixels, buffer = [], Buffer()
    for id in sample_ids(split):
        buffer.clear()
        if _decode_small(buffer, split, id, min_side(size, min_area)) is None:
            pixels.append(buffer.end)
    return round(len(split) * sum(pixels) / max(1, len(pixels)))
