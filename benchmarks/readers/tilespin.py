"""Tilespin's loaders, through the very calls that training makes, and a kernel that flips and normalizes."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch

from benchmarks.readers import MEAN, STD, Photos
from kernels.random import RandomBits
from kernels.rotate import rotate
from ssl_core.data.dataset import open_source
from ssl_core.data.decoding.crops import Buffer
from ssl_core.data.decoding.decode import decode
from ssl_core.data.loaders.select import build_loader, dali_installed, prefetched
from ssl_core.data.sampler import make_sampler


def _way(loader: str, data: Callable[[Photos], str], epochs: int = 1) -> Callable[[Photos], Iterator[torch.Tensor]]:
    made = {}  # memory is filled once, as in a training of many epochs

    def read(photos: Photos) -> Iterator[torch.Tensor]:
        source = open_source(data(photos), photos.size)
        if photos not in made:
            made.clear()
            made[photos] = build_loader(loader, source, photos.device, photos.cores)
        n = len(source.train)
        batches = made[photos].training(
            make_sampler(source.train, 0), photos.batch, range(n * epochs // photos.batch), 0, 1
        )
        for batch in prefetched(batches, made[photos], photos.device):
            flips = RandomBits(batch.ids, batch.epochs, 0).draw("flip", 1)[:, 0] & 1
            none = torch.zeros_like(flips)
            yield rotate(batch.images, none, flips, none[:, None].expand(-1, 2), size=photos.size, mean=MEAN, std=STD)

    return read


def decode_only(photos: Photos) -> Iterator[int]:
    source, buffers = open_source(str(photos.folder)), threading.local()

    def one(id: int) -> int:
        buffer = buffers.__dict__.setdefault("mine", Buffer())
        buffer.clear()
        buffer.append(*decode(partial(source.train.open, id), None, buffer.reserve))
        return 1

    with ThreadPoolExecutor(photos.cores) as pool:
        yield from pool.map(one, range(len(source.train)))


def _folder(photos: Photos) -> str:
    return str(photos.folder)


WAYS = {
    "tilespin cpu": _way("cpu", _folder),
    "tilespin memory": _way("memory", _folder, epochs=10),
    "tilespin cpu, tars": _way("cpu", lambda photos: str(photos.tars[0].parent)),
    "tilespin cpu, parquet": _way("cpu", lambda photos: str(photos.parquet)),
    "tilespin cpu, packed": _way("cpu", lambda photos: str(photos.packed)),
    "tilespin cpu, packed raw": _way("cpu", lambda photos: str(photos.raw)),
}
if dali_installed():
    WAYS["tilespin dali"] = _way("dali", _folder)
DECODE = {"tilespin": decode_only}
