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
from ssl_core.data.loaders.arrays import ArrayLoader
from ssl_core.data.loaders.base import EncodedLoader
from ssl_core.data.loaders.cpu import PREFETCH_BATCHES, CpuLoader
from ssl_core.data.loaders.cuda_stream import prefetch_on_stream
from ssl_core.data.loaders.prefetch import prefetch
from ssl_core.data.loaders.resident import ResidentLoader, bytes_needed
from ssl_core.data.sampler import make_sampler
from ssl_core.errors import UserError
from ssl_core.storage.retry import short_deadline

Name = Literal["auto", "dali", "cpu", "memory"]
MEMORY_SHARE = 1 / 8  # of a GPU's or a machine's memory that resident images may take


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
) -> tuple[ArrayLoader | EncodedLoader, Iterator[Batch]]:
    """The slices that worker `rank` of `world` trains on at `steps`, and the loader that reads them.

    Raises UserError if this machine or this source cannot do with the loader that is asked for.
    """
    order = make_sampler(source.train, seed)
    reader = build_loader(choose_loader(loader, source, device, world)[0], source, device, threads, warn)
    return reader, prefetched(reader.training(order, batch, steps, rank, world), reader, device)


def prefetched(batches: Iterator[Batch], reader: ArrayLoader | EncodedLoader, device: torch.device) -> Iterator[Batch]:
    """The batches of loader `reader`, prepared while the training step works."""
    if device.type == "cuda":
        return prefetch_on_stream(batches, device, PREFETCH_BATCHES)
    return batches if reader.prompt else prefetch(batches, PREFETCH_BATCHES)


def evaluation_batches(source: Source, part: str, ids, device: torch.device, threads: int) -> Iterator[Batch]:
    """The images `ids` of `part` ("train" or "test"), whole (their central square), in the order given."""
    split = source.train if part == "train" else source.test
    if isinstance(split, Arrays):
        return ArrayLoader(split, device).evaluation(ids)
    return CpuLoader(split, source.size, device, threads).evaluation(ids)


def build_loader(
    name: str, source: Source, device: torch.device, threads: int, warn: Callable[[str], None] | None = None
) -> ArrayLoader | EncodedLoader:
    """The loader of that name over the training images."""
    if isinstance(source.train, Arrays):
        return ArrayLoader(source.train, device)
    if name == "dali":
        from ssl_core.data.loaders.dali import DaliLoader  # takes seconds to import, and is not installed everywhere

        kind: type[EncodedLoader] = DaliLoader
    else:
        kind = ResidentLoader if name == "memory" else CpuLoader
    return kind(source.train, source.size, device, threads, warn)


def choose_loader(name: Name, source: Source, device: torch.device, world: int) -> tuple[str, str]:
    """The loader to use and why: what is asked for, else the fastest that this machine and this source allow.

    The choice hangs on how much memory there is, not on how much is free, so that a run that is continued keeps it.
    Raises UserError if what is asked for cannot be had.
    """
    if name not in get_args(Name):
        raise UserError(f"--loader {name}: there is {', '.join(get_args(Name))}")
    if isinstance(source.train, Arrays):
        if name not in ("auto", "memory"):
            raise UserError(f"--loader {name}: {source.name} is kept decoded in memory, there is nothing to read")
        return "memory", "the images are kept decoded"
    if name == "dali" and not dali_installed():
        raise UserError("--loader dali: it is not installed; pip install nvidia-dali-cuda130, on Linux")
    if name != "auto":
        return name, "asked for"
    with short_deadline():
        need, limit = bytes_needed(source.train, source.size), max_resident_bytes(device, world)
    if need <= limit:
        return "memory", f"{need / 1e9:.1f} GB decoded, up to {limit / 1e9:.1f} GB may stay on the {device.type}"
    return choose_decoder(device)


def choose_decoder(device: torch.device) -> tuple[str, str]:
    """The loader for images that do not fit into memory, and why."""
    if device.type != "cuda":
        return "cpu", "without a GPU it is faster than DALI"
    if not dali_installed():
        return "cpu", "DALI is not installed"
    try:
        from ssl_core.data.loaders.dali import check_dali

        check_dali(device)
    except (ImportError, OSError, RuntimeError) as error:
        return "cpu", f"DALI does not work here: {' '.join(str(error).split())}"
    return "dali", "it decodes on the GPU"


def dali_installed() -> bool:
    return find_spec("nvidia") is not None and find_spec("nvidia.dali") is not None


def max_resident_bytes(device: torch.device, world: int) -> float:
    """Bytes of resident images that each worker may have: a GPU has one worker, a machine may have all `world`, and as
    many jobs as it has cores."""
    if device.type == "cuda":
        return MEMORY_SHARE * torch.cuda.get_device_properties(device).total_memory
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):  # a container may have less; "max" if it has all
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return MEMORY_SHARE * memory / max(world, os.cpu_count() or 1)
