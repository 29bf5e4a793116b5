"""What the tests of data in a store share: the data's numbers, and training from them."""

import fcntl
from pathlib import Path

import numpy as np
import torch

from ssl_core.data.dataset import Source
from ssl_core.data.loaders.cpu import CpuLoader
from ssl_core.data.sampler import make_sampler

CPU = torch.device("cpu")
CLASSES, EACH = ("ant", "bee é"), 30
SHARDS = 12  # of the packed training images: more than a window


def name_of(root: Path) -> str:
    """Returns the name that a folder of the fixtures has in the stores, without the number that pytest adds."""
    return root.name.rstrip("0123456789")


def trained(source: Source, steps: range, world: int = 1, batch: int = 9) -> list:
    """Returns the batches of all workers, each with a loader of its own, in the order of the steps and ranks."""
    order, split = make_sampler(source.train, 3), source.train
    streams = [
        CpuLoader(split, 16, CPU, 2, lambda said: None).training(order, batch, steps, rank, world)
        for rank in range(world)
    ]
    return [part for parts in zip(*streams) for part in parts]


def check_each_once(source: Source, batches: list, epochs: int, broken: int = 0) -> None:
    """Checks that each of the first epochs has each training image once, but for the broken ones."""
    met = [(epoch, id) for batch in batches for epoch, id in zip(batch.epochs.tolist(), batch.ids.tolist())]
    whole = [one for one in met if one[0] < epochs]
    assert len(set(whole)) == len(whole) == epochs * (len(source.train) - broken)


def pixels_of(source: Source) -> dict[tuple[int, bytes], int]:
    """Returns how often each training image, by label and pixels, is there."""
    batches = list(CpuLoader(source.train, 24, CPU, 2, lambda said: None).evaluation(np.arange(len(source.train))))
    found = [(label, image.numpy().tobytes()) for b in batches for image, label in zip(b.images, b.labels.tolist())]
    return {one: found.count(one) for one in found}


def held(cache: Path) -> int:
    """Returns the bytes in the cache, of torn files too; nothing comes or is renamed while they are counted."""
    if not (cache / "used").exists():
        return 0
    with open(cache / "used") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        return sum(path.stat().st_size for path in cache.glob("*/*"))


def shard_bytes(source: Source) -> int:
    """Returns the size of the largest shard of a packed dataset in a store."""
    return max(shard.obj.size for shard in source.train.shards)
