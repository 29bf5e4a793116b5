"""From positions in the endless order to batches on the device, by whichever loader fits the source."""

from collections.abc import Callable, Iterator

import torch

from ssl_core.data.ahead import ahead
from ssl_core.data.memory import MemoryLoader
from ssl_core.data.order import Order
from ssl_core.data.source import Arrays, Source
from ssl_core.data.torch_loader import TorchLoader
from ssl_core.task import Batch

AHEAD = 2  # batches that are ready before the training step wants them


def training_batches(
    source: Source,
    *,
    batch: int,
    steps: range,
    seed: int,
    rank: int,
    world: int,
    device: torch.device,
    processes: int,
    warn: Callable[[str], None] | None = None,
) -> tuple[MemoryLoader | TorchLoader, Iterator[Batch]]:
    """The slices that worker `rank` of `world` trains on at `steps`, and the loader that reads them."""
    order = Order(len(source.train), seed)
    if isinstance(source.train, Arrays):
        loader = MemoryLoader(source.train, device)
        return loader, loader.training(order, batch, steps, rank, world)
    loader = TorchLoader(source.train, source.size, device, processes, warn)
    batches = loader.training(order, batch, steps, rank, world)
    # decoding processes read ahead themselves
    return loader, batches if processes else ahead(batches, AHEAD)


def evaluation_batches(source: Source, part: str, ids, device: torch.device, processes: int) -> Iterator[Batch]:
    """The images `ids` of `part` ("train" or "test"), whole (their central square), in the order given."""
    split = source.train if part == "train" else source.test
    if isinstance(split, Arrays):
        return MemoryLoader(split, device).whole(ids)
    return TorchLoader(split, source.size, device, processes).whole(ids)
