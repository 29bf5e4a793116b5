"""A pretraining run: what it is, checked before it starts."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

import jobs.pretraining.compilers as compilers
import ssl_core.encoders.build as encoders
import ssl_core.storage.checkpoint as checkpoint
from jobs.config.interval import Cadence
from jobs.config.recipe import Recipe
from jobs.config.runtime import Where
from jobs.study.folder import Study
from jobs.tracking.connection import Mode
from ssl_core.data.dataset import Arrays, Source, open_source
from ssl_core.data.loaders.select import Name as Loader
from ssl_core.data.loaders.select import choose
from ssl_core.errors import BadInput
from ssl_core.task import DataInfo, Format, Pretext, name_of, tasks
from ssl_core.train import check_one_image, check_parts


@dataclass(frozen=True, kw_only=True)
class Training:
    """One pretraining run, ready to be handed to a worker: nothing here changes the weights but `recipe`."""

    recipe: Recipe  # resolved
    study: str  # the study's folder, or its URL
    name: str  # of the run: <task>-<hash>
    checkpoint_every: Cadence
    keep: checkpoint.Keep
    hang_after: float  # seconds without a step until a worker is taken for hung
    tracking: Mode
    compile: bool = False
    loader: Loader = "auto"
    threads: int = 1  # that decode images, for each worker
    log_every: int = 20

    @property
    def root(self) -> Path:
        return Study(self.study).root

    @property
    def folder(self) -> Path:
        return Study(self.study).run(self.name)


def build(recipe: Recipe, source: Source) -> tuple[Pretext, Format]:
    """The module that `recipe` trains, initialised at random, and the pixels it wants. Raises BadInput."""
    if recipe.encoder == "raw-pixels":
        raise BadInput("--encoder raw-pixels is a floor: there is nothing in it to train")
    encoder = encoders.build(recipe.encoder, source.size, recipe.seed)
    info = encoders.describe(encoder, recipe.encoder, source.size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        data = DataInfo(source.size, len(source.classes), len(source.train))
        task = tasks()[name_of(recipe.task)](recipe.task, info, data)
    dtype = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
    return Pretext(encoder, task), Format(source.mean, source.std, dtype)


def prepare(recipe: Recipe, study: Study, where: Where) -> Training:
    """The run that `recipe` asks for, checked before anything starts. Raises BadInput."""
    source = open_source(recipe.data, recipe.size)
    recipe = recipe.resolved(source, where.place())
    worlds = range(max(1, where.group.least), max(1, where.group.most) + 1)
    fewest = check_parts(recipe.task, recipe.accumulate, worlds, len(source.train))
    model, _ = build(recipe, source)
    if fewest == 1:
        check_one_image(model, source.size)
    if where.compile and not os.environ.get("RAY_ADDRESS"):  # or another machine compiles
        compilers.check(where.place())
    if where.loader != "auto":  # which the worker decides, on its own machine
        choose(where.loader, source, torch.device("cpu"), max(1, where.group.most))
    return Training(
        recipe=recipe,
        study=str(study.root),
        name=recipe.run_name(source),
        checkpoint_every=where.cadence,
        keep=where.keeping,
        hang_after=where.hang_seconds,
        tracking=where.tracking,
        compile=where.compile,
        loader=where.loader,
        threads=decoders(where, source),
    )


def decoders(where: Where, source: Source) -> int:
    """Decoding threads for each job: as told, else the cores shared among the jobs that run at once."""
    if where.threads > 0 or isinstance(source.train, Arrays):
        return max(1, where.threads)
    cores = len(os.sched_getaffinity(0))
    if not where.group.most:
        return cores
    return max(1, cores // torch.cuda.device_count()) if where.place() == "cuda" and torch.cuda.is_available() else 1
