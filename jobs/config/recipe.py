"""Defines what decides the weights of a pretraining run, and the name that follows from it."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from jobs.config.start import load_start, resolve_start, start_digest
from ssl_core.data.data_source import dataset_names
from ssl_core.data.dataset import Source, open_source
from ssl_core.data.decoding.crops import MIN_AREA
from ssl_core.data.label_table import split_column
from ssl_core.data.sources.parquet import ParquetFiles
from ssl_core.data.sources.tars import TarFiles
from ssl_core.errors import UserError
from ssl_core.storage.object_store import is_url
from ssl_core.task import plugin_digests, task_name

VERSION = 2  # raise when the same recipe would give other weights


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Describes a pretraining run as it is asked for."""

    task: Any  # the Config of a task
    data: str = "cifar10"
    """cifar10, fashion-mnist, a folder of images (class sub-folders, a table of labels, or unlabeled), such a table,
    a folder of tar files in webdataset's layout or of Parquet shards, a folder from tilespin pack,
    or a URL (s3://, gs://, https://, hf://datasets/) of images, of Parquet shards or of a folder from tilespin pack;
    DATA#COLUMN names the column of the labels in tables and Parquet shards"""
    size: int | None = None
    """side in pixels that images are resized to; default: the dataset's own, 96 for a folder"""
    encoder: str = "convnet"
    """convnet (small, for CPUs), convnet-plain (the same without batch norm), nin (RotNet's on CIFAR-10),
    vit-small-images (a small vision transformer), or any encoder of timm by its name, or of torchvision as
    torchvision:NAME"""
    init: str = "random"
    """where the encoder starts: random, or pretrained weights, as --encoder of tilespin evaluate takes them:
    timm:resnet18, timm:resnet18=FILE, or the folder of another run"""
    steps: int | None = None
    """number of optimizer steps; default: 1000, unless --epochs is given"""
    epochs: float | None = None
    """passes over the training images, instead of --steps"""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast on a GPU, fp32 on a CPU"""
    grad_accumulation: int = 1
    """number of parts that a worker divides its share of a batch into, to save memory"""
    seed: int = 0
    """seed of initialization, order and every random draw"""

    def source(self) -> Source:
        """Opens the dataset, of the images that the task trains on; raises UserError if that cannot be done."""
        return _open(self)

    def resolved(self, source: Source, device: str) -> "Recipe":
        """Fills in what was left open.

        Args:
            source: What `source` returns.
            device: "cuda" or "cpu".

        Raises:
            UserError: If options contradict each other, or a number is out of range.
        """
        if self.steps is not None and self.epochs is not None:
            raise UserError("--steps and --epochs are both given: choose one")
        steps = self.steps if self.steps is not None else 1000
        if self.epochs is not None:
            if not (math.isfinite(self.epochs) and self.epochs > 0):
                raise UserError(f"--epochs is {self.epochs}, expected more than 0")
            steps = round(self.epochs * len(source.train) / self.task.batch) or 1
        for name, value, least in (
            ("--steps", steps, 1),
            ("--batch", self.task.batch, 1),
            ("--seed", self.seed, 0),
            ("--grad-accumulation", self.grad_accumulation, 1),
            ("--size", source.size, 8),
        ):
            if value < least:
                raise UserError(f"{name} is {value}, expected at least {least}")
        self._check_crop(source)
        if self.seed >= 2**31:
            raise UserError(f"--seed is {self.seed}, expected less than 2**31")
        self.task.optim.check()
        start = load_start(self.init)
        if start and start.architecture != self.encoder:
            raise UserError(f"--init {self.init} is a {start.architecture}, --encoder a {self.encoder}: give the same")
        precision = ("bf16" if device == "cuda" else "fp32") if self.precision == "auto" else self.precision
        return Recipe(
            task=self.task,
            data=resolve_data_path(self.data),
            size=source.size,
            encoder=self.encoder,
            init=resolve_start(self.init),
            init_digest=start_digest(self.init),
            steps=steps,
            precision=precision,
            grad_accumulation=self.grad_accumulation,
            seed=self.seed,
        )

    def _check_crop(self, source: Source) -> None:
        """Raises UserError if the loader cannot crop as asked."""
        least = self.task.loader_min_area
        if not 0 < least <= 1:
            raise UserError(f"--loader-min-area is {least}, expected a share above 0 and at most 1")
        if source.train.pixels is not None and least != MIN_AREA:
            raise UserError(f"--loader-min-area {least}: the images of {source.name} are no files, and are not cut")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Describes a pretraining run with nothing left open; `PretrainConfig.resolved` makes it."""

    task: Any  # the Config of a task
    data: str
    size: int
    encoder: str
    init: str
    init_digest: str | None
    steps: int
    epochs: None = None  # `steps` says how long; the names of earlier runs were made with this field
    precision: Literal["fp32", "bf16"]
    grad_accumulation: int
    seed: int

    def source(self) -> Source:
        """Opens the dataset, of the images that the task trains on; raises UserError if that cannot be done."""
        return _open(self)

    def identity(self, source: Source) -> dict:
        """Returns all that the weights depend on; not workers, device, loader, storage, name or tracking."""
        options = asdict(self)
        for place in ("data", "init"):
            options.pop(place)
        if self.init_digest is None:
            options.pop("init_digest")  # the names of earlier runs were made without it
        task = {"name": task_name(self.task), **options.pop("task")}
        if source.train.pixels is not None:
            task.pop("loader_min_area")  # they are not cropped
        plugins = " ".join(f"{name}:{digest}" for name, digest in plugin_digests(self.task).items())
        return {
            **{"task": task, **options, "dataset": source.digest, "recipe": VERSION},
            **({"plugin": plugins} if plugins else {}),
        }

    def run_name(self, source: Source) -> str:
        """Returns the run's name: its task and a hash of all that its weights depend on."""
        identity = self.identity(source)
        if self.task.loader_min_area == MIN_AREA:
            identity["task"].pop("loader_min_area", None)  # so that runs keep the names from before it was an option
        return f"{task_name(self.task)}-{short_hash(identity)}"


def _open(asked: PretrainConfig | Recipe) -> Source:
    source = open_source(asked.data, asked.size)
    if not asked.task.needs_labels:
        return source
    if source.multilabel:
        raise UserError(f"{task_name(asked.task)} needs one label an image, and those of {source.name} have several")
    return source.labeled()


def resolve_data_path(data: str) -> str:
    """Makes the path of a folder, a file or a pattern of shards absolute, and returns anything else as it is.

    So data is found from whatever folder a run is continued in.
    """
    if data in dataset_names() or is_url(data):
        return data
    place, column = split_column(data)
    path, column = Path(place).expanduser(), "" if column is None else f"#{column}"
    if path.is_dir():
        return f"{path.resolve()}{column}"
    known = path.exists() or TarFiles().opens(data) or ParquetFiles().opens(data)
    return f"{path.absolute()}{column}" if known else data


def short_hash(value) -> str:
    """Returns 12 hex digits of the sha256 of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
