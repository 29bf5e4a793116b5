"""From positions in the endless order to batches on the device, by whichever loader fits the source."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

import torch

from ssl_core.data.batch import Batch
from ssl_core.data.dataset import Arrays, Source
from ssl_core.data.loaders.arrays import MemoryLoader
from ssl_core.data.loaders.base import EncodedLoader
from ssl_core.data.loaders.cpu import AHEAD, TorchLoader
from ssl_core.data.loaders.cuda_stream import beside
from ssl_core.data.loaders.prefetch import ahead
from ssl_core.data.loaders.resident import ResidentLoader, bytes_needed
from ssl_core.data.sampler import order_of
from ssl_core.errors import BadInput
from ssl_core.storage.retry import briefly

Name = Literal["auto", "dali", "torch", "memory"]
SHARE = 1 / 8  # of a GPU's or a machine's memory that resident images may take


def training_batches(
    source: Source,
    *,
    batch: int,
    steps: range,
    seed: int,
    rank: int,
    world: int,
    device: torch.device,
    threads: int,
    loader: Name = "auto",
    warn: Callable[[str], None] | None = None,
) -> tuple[MemoryLoader | EncodedLoader, Iterator[Batch]]:
    """The slices that worker `rank` of `world` trains on at `steps`, and the loader that reads them.

    Raises BadInput if this machine or this source cannot do with the loader that is asked for.
    """
    order = order_of(source.train, seed)
    made = build(choose(loader, source, device, world)[0], source, device, threads, warn)
    return made, overlapped(made.training(order, batch, steps, rank, world), made, device)


def overlapped(batches: Iterator[Batch], made: MemoryLoader | EncodedLoader, device: torch.device) -> Iterator[Batch]:
    """The batches of loader `made`, prepared while the training step works."""
    if device.type == "cuda":
        return beside(batches, device, AHEAD)
    return batches if made.prompt else ahead(batches, AHEAD)


def evaluation_batches(source: Source, part: str, ids, device: torch.device, threads: int) -> Iterator[Batch]:
    """The images `ids` of `part` ("train" or "test"), whole (their central square), in the order given."""
    split = source.train if part == "train" else source.test
    if isinstance(split, Arrays):
        return MemoryLoader(split, device).whole(ids)
    return TorchLoader(split, source.size, device, threads).whole(ids)


def build(
    name: str, source: Source, device: torch.device, threads: int, warn: Callable[[str], None] | None = None
) -> MemoryLoader | EncodedLoader:
    """The loader of that name over the training images."""
    if isinstance(source.train, Arrays):
        return MemoryLoader(source.train, device)
    if name == "dali":
        from ssl_core.data.loaders.dali import DaliLoader  # takes seconds to import, and is not installed everywhere

        kind: type[EncodedLoader] = DaliLoader
    else:
        kind = ResidentLoader if name == "memory" else TorchLoader
    return kind(source.train, source.size, device, threads, warn)


def choose(name: Name, source: Source, device: torch.device, world: int) -> tuple[str, str]:
    """The loader to use and why: what is asked for, else the fastest that this machine and this source allow.

    The choice hangs on how much memory there is, not on how much is free, so that a run that is continued keeps it.
    Raises BadInput if what is asked for cannot be had.
    """
    if name not in get_args(Name):
        raise BadInput(f"--loader {name}: there is {', '.join(get_args(Name))}")
    if isinstance(source.train, Arrays):
        if name not in ("auto", "memory"):
            raise BadInput(f"--loader {name}: {source.name} is kept decoded in memory, there is nothing to read")
        return "memory", "the images are kept decoded"
    if name == "dali" and not dali_installed():
        raise BadInput("--loader dali: it is not installed; pip install nvidia-dali-cuda130, on Linux")
    if name != "auto":
        return name, "asked for"
    with briefly():
        need, limit = bytes_needed(source.train, source.size), most_resident(device, world)
    if need <= limit:
        return "memory", f"{need / 1e9:.1f} GB decoded, up to {limit / 1e9:.1f} GB may stay on the {device.type}"
    return reads(device)


def reads(device: torch.device) -> tuple[str, str]:
    """The loader for images that do not fit into memory, and why."""
    if device.type != "cuda":
        return "torch", "without a GPU it is faster than DALI"
    if not dali_installed():
        return "torch", "DALI is not installed"
    try:
        from ssl_core.data.loaders.dali import check

        check(device)
    except (ImportError, OSError, RuntimeError) as error:
        return "torch", f"DALI does not work here: {' '.join(str(error).split())}"
    return "dali", "it decodes on the GPU"


def dali_installed() -> bool:
    return find_spec("nvidia") is not None and find_spec("nvidia.dali") is not None


def most_resident(device: torch.device, world: int) -> float:
    """Bytes of resident images that each worker may have: a GPU has one worker, a machine may have all `world`, and as
    many jobs as it has cores."""
    if device.type == "cuda":
        return SHARE * torch.cuda.get_device_properties(device).total_memory
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):  # a container may have less; "max" if it has all
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return SHARE * memory / max(world, os.cpu_count() or 1)
