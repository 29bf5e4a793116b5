"""Tilespin's loaders, through the very calls that training makes, and a kernel that flips and normalises."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch

from benchmarks.readers import MEAN, STD, Photos
from kernels.random import Draw
from kernels.rotate import rotate
from ssl_core.data.dataset import open_source
from ssl_core.data.decoding.crops import Buffer
from ssl_core.data.decoding.decode import decode
from ssl_core.data.loaders.select import build, dali_installed, overlapped
from ssl_core.data.sampler import order_of


def _way(loader: str, data: Callable[[Photos], str], epochs: int = 1) -> Callable[[Photos], Iterator[torch.Tensor]]:
    made = {}  # memory is filled once, as in a training of many epochs

    def read(photos: Photos) -> Iterator[torch.Tensor]:
        source = open_source(data(photos), photos.size)
        if photos not in made:
            made.clear()
            made[photos] = build(loader, source, photos.device, photos.cores)
        n = len(source.train)
        batches = made[photos].training(
            order_of(source.train, 0), photos.batch, range(n * epochs // photos.batch), 0, 1
        )
        for batch in overlapped(batches, made[photos], photos.device):
            flips = Draw(batch.ids, batch.epochs, 0).words("flip", 1)[:, 0] & 1
            none = torch.zeros_like(flips)
            yield rotate(batch.images, none, flips, none[:, None].expand(-1, 2), size=photos.size, mean=MEAN, std=STD)

    return read


def decode_only(photos: Photos) -> Iterator[int]:
    source, buffers = open_source(str(photos.folder)), threading.local()

    def one(id: int) -> int:
        buffer = buffers.__dict__.setdefault("mine", Buffer())
        buffer.clear()
        buffer.keep(*decode(partial(source.train.open, id), None, buffer.room))
        return 1

    with ThreadPoolExecutor(photos.cores) as pool:
        yield from pool.map(one, range(len(source.train)))


def _folder(photos: Photos) -> str:
    return str(photos.folder)


WAYS = {
    "tilespin torch": _way("torch", _folder),
    "tilespin memory": _way("memory", _folder, epochs=10),
    "tilespin torch, packed": _way("torch", lambda photos: str(photos.packed)),
    "tilespin torch, packed raw": _way("torch", lambda photos: str(photos.raw)),
}
if dali_installed():
    WAYS["tilespin dali"] = _way("dali", _folder)
DECODE = {"tilespin": decode_only}
