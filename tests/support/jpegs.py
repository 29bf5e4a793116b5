"""JPEGs in memory and on the disk for tests, and the batches that loaders make of them."""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ssl_core.data.batch import Batch
from ssl_core.data.dataset import Files
from ssl_core.data.loaders.base import EncodedLoader
from ssl_core.data.sampler import ShuffledSampler

CPU = torch.device("cpu")
SIDE = 70  # pixels of a crop that is too large for any of the fixture's JPEGs to be shrunk


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    """Returns a smooth picture in random colors."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.BICUBIC)


def jpeg(image: Image.Image, **options) -> bytes:
    """Returns the bytes of a JPEG, written with Pillow's options."""
    file = io.BytesIO()
    image.save(file, "jpeg", **options)
    return file.getvalue()


def put(folder: Path, *files: bytes) -> Files:
    """Writes files to a folder, and returns them as a split, labeled by their numbers."""
    for number, data in enumerate(files):
        (folder / f"{number:03d}.jpg").write_bytes(data)
    return Files(sorted(folder.iterdir()), np.arange(len(files)))


def batches(kind: type[EncodedLoader], split: Files, size: int, threads: int = 2, **options) -> list[Batch]:
    """Returns the batches of five images of two epochs from a loader of a kind, with its options."""
    n = len(split)
    return list(kind(split, size, CPU, threads, **options).training(ShuffledSampler(n, 0), 5, range(2 * n // 5), 0, 1))
