"""Chooses the loader that fits the dataset and the machine, and makes batches with it."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch

from ssl_core.data.batch import Batch
from ssl_core.data.dataset import Source
from ssl_core.data.decoding.crops import MIN_AREA
from ssl_core.data.loaders.arrays import MAX_CHUNK, ArrayLoader
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
    min_area: float = MIN_AREA,
) -> tuple[ArrayLoader | EncodedLoader, Iterator[Batch]]:
    """Makes the batches that a worker trains on.

    Args:
        source: The dataset.
        batch: Images of a global batch.
        steps: Numbers of the global batches.
        seed: Of the images' order and their crops.
        rank: Of the worker.
        world: How many workers share a global batch.
        device: Where batches are delivered.
        threads: How many threads decode.
        loader: Which loader to use, as for `choose_loader`.
        warn: Called once for each image that cannot be decoded, with a message; None: it is printed on stderr.
        min_area: The smallest area of a training crop, as a share of the largest square's; a dataset in memory is not
            cropped.

    Returns:
        The loader, and the worker's part of each global batch, prepared ahead.

    Raises:
        UserError: If this machine or this dataset does not allow the loader that is asked for.
        StorageError: If the dataset's store fails.
    """
    order = make_sampler(source.train, seed)
    name, _ = choose_loader(loader, source, device, world, min_area)
    reader = build_loader(name, source, device, threads, warn, min_area)
    return reader, prefetched(reader.training(order, batch, steps, rank, world), reader, device)


def prefetched(batches: Iterator[Batch], reader: ArrayLoader | EncodedLoader, device: torch.device) -> Iterator[Batch]:
    """Prepares batches while the training step works, where that helps.

    Args:
        batches: Of `reader`.
        reader: The loader.
        device: Where the batches are.

    Returns:
        The same batches.
    """
    if device.type == "cuda":
        return prefetch_on_stream(batches, device, PREFETCH_BATCHES)
    return batches if reader.prompt else prefetch(batches, PREFETCH_BATCHES)


def evaluation_batches(
    source: Source, part: str, ids: np.ndarray, device: torch.device, threads: int, most: int = MAX_CHUNK
) -> Iterator[Batch]:
    """Reads the central squares of some images.

    Args:
        source: The dataset.
        part: "train" or "test".
        ids: [n] int64, rows of that part.
        device: Where batches are delivered.
        threads: How many threads decode.
        most: Images of a batch, at most.

    Returns:
        Batches of the images in the order given.
    """
    split = source.train if part == "train" else source.test
    if split.pixels is not None:
        return ArrayLoader(split, device).evaluation(ids, most)
    return CpuLoader(split, source.size, device, threads).evaluation(ids, most)


def build_loader(
    name: str,
    source: Source,
    device: torch.device,
    threads: int,
    warn: Callable[[str], None] | None = None,
    min_area: float = MIN_AREA,
) -> ArrayLoader | EncodedLoader:
    """Builds a loader of the training images.

    Args:
        name: "dali", "cpu" or "memory", as `choose_loader` returns it; a dataset in memory has one loader only.
        source: The dataset.
        device: Where batches are delivered.
        threads: How many threads decode.
        warn: Called once for each image that cannot be decoded, with a message; None: it is printed on stderr.
        min_area: The smallest area of a training crop, as a share of the largest square's; a dataset in memory is not
            cropped.
    """
    if source.train.pixels is not None:
        return ArrayLoader(source.train, device)
    if name == "dali":
        from ssl_core.data.loaders.dali import DaliLoader  # takes seconds to import, and is not installed everywhere

        kind: type[EncodedLoader] = DaliLoader
    else:
        kind = ResidentLoader if name == "memory" else CpuLoader
    return kind(source.train, source.size, device, threads, warn, min_area)


def choose_loader(
    name: Name, source: Source, device: torch.device, world: int, min_area: float = MIN_AREA
) -> tuple[str, str]:
    """Chooses the loader: what is asked for, else the fastest that this machine and this dataset allow.

    The choice depends on how much memory there is, not on how much is free, so that a run that is continued keeps it.

    Args:
        name: What is asked for; "auto": the choice is free.
        source: The dataset.
        device: Where batches are delivered.
        world: How many workers train.
        min_area: The smallest area of a training crop, as a share of the largest square's.

    Returns:
        "dali", "cpu" or "memory", and why, for the user.

    Raises:
        UserError: If there is no such loader, or it cannot be used here.
        StorageError: If the dataset's store fails.
    """
    if name not in get_args(Name):
        raise UserError(f"--loader {name}: there is {', '.join(get_args(Name))}")
    if source.train.pixels is not None:
        if name not in ("auto", "memory"):
            raise UserError(f"--loader {name}: {source.name} is kept decoded in memory, there is nothing to read")
        return "memory", "the images are kept decoded"
    if name == "dali" and not dali_installed():
        raise UserError("--loader dali: it is not installed; pip install nvidia-dali-cuda130, on Linux")
    if name != "auto":
        return name, "asked for"
    with short_deadline():
        need, limit = bytes_needed(source.train, source.size, min_area), max_resident_bytes(device, world)
    if need <= limit:
        return "memory", f"{need / 1e9:.1f} GB decoded, up to {limit / 1e9:.1f} GB may stay on the {device.type}"
    return choose_decoder(device)


def choose_decoder(device: torch.device) -> tuple[str, str]:
    """Chooses the loader for images that do not fit into memory: "dali" or "cpu", and why, for the user."""
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
    """Returns whether NVIDIA DALI is installed, without importing it."""
    return find_spec("nvidia") is not None and find_spec("nvidia.dali") is not None


def max_resident_bytes(device: torch.device, world: int) -> float:
    """Returns how many bytes of resident images each worker may have.

    A GPU has one worker. In a machine's memory there may be all workers, or as many jobs as it has cores.

    Args:
        device: Where the images would be.
        world: How many workers train.

    Returns:
        Bytes: a share of MEMORY_SHARE of all memory, or of the container's.
    """
    if device.type == "cuda":
        return MEMORY_SHARE * torch.cuda.get_device_properties(device).total_memory
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):  # a container may have less; "max" if it has all
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return MEMORY_SHARE * memory / max(world, os.cpu_count() or 1)
