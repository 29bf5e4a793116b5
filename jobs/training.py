"""Pretraining runs: what one is, and the function that a worker trains it with."""

import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch

import ssl_core.checkpoint as checkpoint
import ssl_core.encoders as encoders
from jobs.journal import Journal
from jobs.layout import Study
from jobs.notices import warn
from jobs.recipe import Recipe
from jobs.tracking import Mode
from jobs.where import Where
from ssl_core.data.ahead import Waited
from ssl_core.data.loader import Name as Loader
from ssl_core.data.loader import choose, training_batches
from ssl_core.data.source import Arrays, Source, open_source
from ssl_core.errors import BadInput, Diverged
from ssl_core.files import read_json
from ssl_core.task import DataInfo, Format, Pretext, name_of, tasks
from ssl_core.train import Plan, check_slices, encoder_macs, train, workers


@dataclass(frozen=True, kw_only=True)
class Training:
    """One pretraining run, ready to be handed to a worker: nothing here changes the weights but `recipe`."""

    recipe: Recipe  # resolved
    study: str  # the study's folder
    name: str  # of the run: <task>-<hash>
    checkpoint_every: int
    tracking: Mode
    compile: bool = False
    loader: Loader = "auto"
    threads: int = 1  # that decode images, for each worker
    log_every: int = 20

    @property
    def folder(self) -> Path:
        return Study(Path(self.study)).run(self.name)


def build(recipe: Recipe, source: Source) -> tuple[Pretext, Format]:
    """The module that `recipe` trains, initialised at random, and the pixels it wants. Raises BadInput."""
    if recipe.encoder == "raw-pixels":
        raise BadInput("--encoder raw-pixels is a floor: there is nothing in it to train")
    encoder = encoders.build(recipe.encoder, source.size, recipe.seed)
    info = encoders.describe(encoder, recipe.encoder, source.size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        task = tasks()[name_of(recipe.task)](recipe.task, info, DataInfo(source.size, len(source.classes)))
    dtype = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
    return Pretext(encoder, task), Format(source.mean, source.std, dtype)


def run(training: Training, device: str) -> dict:
    """Trains in this process, one of the group's workers -> the content of encoder.json.

    Finishes at once if the run is already complete; continues from its newest good checkpoint otherwise.
    Raises BadInput or Diverged, which trying again would not help, and StoreFailed.
    """
    folder, recipe = training.folder, training.recipe
    if (folder / "encoder.json").exists():
        return read_json(folder / "encoder.json")
    rank, world = workers()
    place = torch.device(device)
    source, model, format = _open(recipe)
    macs = encoder_macs(model, source.size)
    model = model.to(place, memory_format=torch.channels_last)
    state, damaged = checkpoint.newest(folder / "checkpoints")
    first = state["step"] if state else 0
    loader, batches = training_batches(
        source, batch=recipe.task.batch, steps=range(first, recipe.steps), seed=recipe.seed, rank=rank, world=world,
        device=place, loader=training.loader, threads=training.threads,
        warn=lambda said: warn(Path(training.study), said),
    )  # fmt: skip
    plan = Plan(
        steps=recipe.steps, seed=recipe.seed, optim=recipe.task.optim, precision=recipe.precision,
        accumulate=recipe.accumulate, compile=training.compile,
    )  # fmt: skip
    journal = Journal(training, source, state) if rank == 0 else None
    try:
        for path in damaged if journal else ():
            warn(Path(training.study), f"damaged checkpoint passed over: {path}")
        window, batches = Window(state), Waited(batches)
        for step in train(model, batches, format, plan, state):
            window.add(step.metrics)
            if step.number % training.log_every == 0 or step.number == recipe.steps:
                means = window.means()
                _check_finite(means, step.number, folder)
                if journal:
                    journal.log(step.number, means, batches.share())
            if step.number % training.checkpoint_every == 0 and step.number < recipe.steps:
                saved = {**step.state(), "window": window.state(), "seconds": journal.seconds() if journal else 0.0}
                if journal:
                    checkpoint.save(folder / "checkpoints", saved)
        skipped = set().union(*_gathered(set(loader.skipped)))
        if journal is None:
            return {}
        return journal.complete(model, format, loader, macs, sorted(skipped))
    finally:
        if journal:
            journal.close()


class Window:
    """Means over the images since the last row of metrics.jsonl, also across a restart; the device keeps the sums."""

    def __init__(self, state: dict | None):
        self.sums: dict = dict(state["window"]) if state else {}

    def add(self, metrics: dict[str, torch.Tensor]) -> None:
        weight = metrics["weight"]
        for name, value in metrics.items():
            self.sums[name] = self.sums.get(name, 0) + (weight if name == "weight" else value * weight)

    def means(self) -> dict[str, float]:
        """The means, `lr` among them; begins the next window."""
        weight = float(self.sums.pop("weight"))
        means = {name: float(value) / weight for name, value in self.sums.items()}
        self.sums = {}
        return means

    def state(self) -> dict[str, float]:
        return {name: float(value) for name, value in self.sums.items()}


def _open(recipe: Recipe) -> tuple[Source, Pretext, Format]:
    """The data and the module. What is BadInput on one worker is raised on all: the others would wait for it."""
    opened, trouble = [], None
    try:
        source = open_source(recipe.data, recipe.size)
        opened = [source, *build(recipe, source)]
    except BadInput as error:
        trouble = error
    for error in _gathered(trouble):
        if error is not None:
            raise error
    source, model, format = opened
    return source, model, format


def _gathered(value) -> list:
    """The `value` of every worker, on every worker."""
    if workers()[1] == 1:
        return [value]
    found: list = [None] * workers()[1]
    torch.distributed.all_gather_object(found, value)
    return found


def _check_finite(means: dict[str, float], step: int, folder: Path) -> None:
    if not math.isfinite(means["loss"]):
        raise Diverged(
            f"the loss is {means['loss']} at step {step}: try a lower --lr, more --warmup or --clip 1; "
            f"the checkpoints in {folder / 'checkpoints'} are from before"
        )


def prepare(recipe: Recipe, study: Study, where: Where) -> Training:
    """The run that `recipe` asks for, checked before anything starts. Raises BadInput."""
    source = open_source(recipe.data, recipe.size)
    recipe = recipe.resolved(source, where.place())
    check_slices(recipe.task.batch, max(1, where.workers))
    build(recipe, source)
    if where.loader != "auto":  # which the worker decides, on its own machine
        choose(where.loader, source, torch.device("cpu"), max(1, where.workers))
    return Training(
        recipe=recipe, study=str(study.root), name=recipe.run_name(source), checkpoint_every=where.checkpoint_every,
        tracking=where.tracking, compile=where.compile, loader=where.loader, threads=decoders(where, source),
    )  # fmt: skip


def decoders(where: Where, source: Source) -> int:
    """Decoding threads for each job: as told, else the cores shared among the jobs that run at once."""
    if where.threads > 0 or isinstance(source.train, Arrays):
        return max(1, where.threads)
    cores = len(os.sched_getaffinity(0))
    if not where.workers:
        return cores
    return max(1, cores // torch.cuda.device_count()) if where.place() == "cuda" and torch.cuda.is_available() else 1
