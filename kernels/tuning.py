"""Configurations of the Triton kernels: how many warps a program has and how many pixels it takes.

A kernel declares the configurations that it can run with, a `Tunable`, at the top of its `triton_kernel.py`. All of
them give the same bits. `python -m benchmarks.tune` measures them on a GPU and keeps the fastest in `tuned/`, in a
table for each compute capability, which comes with the package; a launch takes what the table says of the nearest size.
**Until a GPU has been measured, the default holds**: the configuration with the fewest instructions for each output
element on sm_90, as `python -m benchmarks.machine_code` counts them, of those that take at most 224 registers, since
what is closer to the 255 that there are spills with some versions of Triton; a test keeps it so.

`triton.autotune` would not do: it measures in the first call for each shape, so every process of a training would
stall, and could not while a CUDA graph is captured; two workers might choose differently; and what it finds is kept in
a user's cache, under a hash of Triton's own build, where it cannot be shipped, read or reviewed.
"""

import functools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from triton import Config

FOLDER = Path(__file__).parent / "tuned"
VERSION = 1  # of the tables' format


class Key(NamedTuple):
    """What a configuration is chosen by.

    Attributes:
        size: The side of the output, in pixels.
        bits: Of an output element.
        channels_last: Whether the output is in channels_last instead of NCHW memory order.
    """

    size: int
    bits: int
    channels_last: bool


@dataclass(frozen=True)
class Entry:
    """One measurement of a table.

    Attributes:
        name: Of the `Tunable`.
        size: As in `Key`.
        bits: As in `Key`.
        channels_last: As in `Key`.
        config: The fastest configuration, as `describe` gives it.
        milliseconds: Median of each configuration, by its label.
    """

    name: str
    size: int
    bits: int
    channels_last: bool
    config: dict[str, int]
    milliseconds: dict[str, float]


def describe(config: Config) -> dict[str, int]:
    """Returns a configuration as numbers by name, `num_warps` and the kernel's constants."""
    return {"num_warps": config.num_warps, **config.kwargs}


def label(config: Config) -> str:
    """Returns a configuration in one line."""
    return " ".join(f"{name}={value}" for name, value in describe(config).items())


class Tunable:
    """The configurations of one launch, by which its results do not differ.

    Attributes:
        name: Of the launch: that of the kernel, where it has one launch.
        configs: All of them; by default the first is used.
    """

    def __init__(self, name: str, configs: Sequence[Config], default: Callable[[Key], int] = lambda key: 0):
        """Declares them.

        Args:
            name: Of the launch.
            configs: Warps, and values of constants of the kernel.
            default: Says which of them to use where none was measured, by its index.
        """
        self.name, self.configs, self._default = name, tuple(configs), default

    def choose(
        self, size: int, dtype: torch.dtype, channels_last: bool, device: torch.device | None = None
    ) -> dict[str, Any]:
        """Chooses a configuration.

        Args:
            size: The side of the output, in pixels.
            dtype: Of the output.
            channels_last: Whether the output is in channels_last instead of NCHW memory order.
            device: Where it is launched; None for the default.

        Returns:
            Keyword arguments of the launch: `num_warps` and constants.
        """
        key = Key(size, 8 * dtype.itemsize, channels_last)
        _asked[self.name] = key
        config = _overrides.get(self.name)
        if config is None:
            capability = device and compute_capability(device)
            config = _measured(self, key, capability) if capability else self.default(key)
        return describe(config)

    def default(self, key: Key) -> Config:
        """Returns the configuration to use where none was measured."""
        return self.configs[self._default(key)]


_overrides: dict[str, Config] = {}
_asked: dict[str, Key] = {}


@contextmanager
def override(configs: Mapping[str, Config]) -> Iterator[dict[str, Key]]:
    """Makes launches take given configurations, for tests and measurements in one thread.

    Args:
        configs: By the name of the `Tunable`; the others choose as always.

    Yields:
        A dict that comes to hold what each launch was last asked for, by the name of its `Tunable`.
    """
    before = dict(_overrides)
    _overrides.update(configs)
    _asked.clear()
    try:
        yield _asked
    finally:
        _overrides.clear()
        _overrides.update(before)


@functools.cache
def compute_capability(device: torch.device) -> tuple[int, int] | None:
    """Returns the compute capability of a GPU, such as (9, 0); None for another device."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else None


def table_path(folder: Path, capability: tuple[int, int]) -> Path:
    """Returns where the table of a compute capability lies in a folder."""
    return folder / f"sm_{capability[0]}{capability[1]}.json"


def save_table(path: Path, machine: Mapping[str, Any], entries: Iterable[Entry]) -> None:
    """Writes a table, beside and renamed.

    Args:
        path: Of the file; its folder is made.
        machine: What it was measured with: GPU, versions, date.
        entries: What was measured.
    """
    content = {"version": VERSION, "machine": dict(machine), "entries": [asdict(entry) for entry in entries]}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(temporary, path)


@functools.cache
def load_table(path: Path) -> tuple[Entry, ...]:
    """Reads a table once.

    Args:
        path: Of the file.

    Returns:
        Its entries; none if there is no such file. A table that cannot be read, or that a newer version of this package
        wrote, has none either, and one line on stderr says so: no result depends on it, so it stops no training.
    """
    try:
        content = json.loads(path.read_text())
        if content["version"] != VERSION:
            raise ValueError(f"its version is {content['version']}, this package reads {VERSION}")
        entries = tuple(Entry(**entry) for entry in content["entries"])
        for entry in entries:
            if min(entry.size, entry.bits, entry.config["num_warps"]) < 1 or type(entry.channels_last) is not bool:
                raise ValueError(f"got {entry}")
        return entries
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        _ignore(path, f"{type(error).__name__}: {error}")
        return ()


@functools.cache
def _measured(tunable: Tunable, key: Key, capability: tuple[int, int]) -> Config:
    """Returns the fastest configuration at the nearest size of the same layout and bits, or the default."""
    path = table_path(FOLDER, capability)
    same = [
        entry
        for entry in load_table(path)
        if (entry.name, entry.bits, entry.channels_last) == (tunable.name, key.bits, key.channels_last)
    ]
    if not same:
        return tunable.default(key)
    nearest = min(same, key=lambda entry: max(entry.size / key.size, key.size / entry.size))
    for config in tunable.configs:
        if describe(config) == nearest.config:
            return config
    _ignore(path, f"{tunable.name} has no configuration {nearest.config}")
    return tunable.default(key)


@functools.cache  # says it once
def _ignore(path: Path, why: str) -> None:
    print(
        f"tilespin: {path} is ignored ({why}): kernels run as by default; python -m benchmarks.tune makes a new one",
        file=sys.stderr,
        flush=True,
    )
