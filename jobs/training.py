"""Pretraining runs: what one is, and the function that a worker trains it with."""

import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

import ssl_core.checkpoint as checkpoint
import ssl_core.encoders as encoders
from jobs.journal import Journal
from jobs.layout import Study
from jobs.recipe import Recipe
from jobs.tracking import Mode
from jobs.where import Where
from ssl_core.data.loader import training_batches
from ssl_core.data.source import Source, open_source
from ssl_core.errors import Diverged
from ssl_core.files import read_json
from ssl_core.task import DataInfo, Format, Pretext, name_of, tasks
from ssl_core.train import Plan, check_slices, encoder_macs, train, workers


@dataclass(frozen=True, kw_only=True)
class Training:
    """One pretraining run, ready to be handed to a worker: nothing here changes the weights but `recipe`."""

    recipe: Recipe  # resolved
    study: str  # the study's folder
    name: str  # of the run: <task>-<hash>
    token: str
    checkpoint_every: int
    tracking: Mode
    compile: bool = False
    processes: int = 0  # that decode images, for each worker
    log_every: int = 20

    @property
    def folder(self) -> Path:
        return Study(Path(self.study)).run(self.name)


def build(recipe: Recipe, source: Source) -> tuple[Pretext, Format]:
    """The module that `recipe` trains, initialised at random, and the pixels it wants."""
    encoder = encoders.build(recipe.encoder, source.size, recipe.seed)
    info = encoders.describe(encoder, recipe.encoder, source.size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        task = tasks()[name_of(recipe.task)](recipe.task, info, DataInfo(source.size, len(source.classes)))
    return Pretext(encoder, task), Format(source.mean, source.std)


def run(training: Training, device: str) -> dict:
    """Trains in this process, one of the group's workers -> the content of encoder.json.

    Finishes at once if the run is already complete; continues from its newest good checkpoint otherwise.
    Raises BadInput or Diverged, which trying again would not help.
    """
    folder, recipe = training.folder, training.recipe
    if (folder / "encoder.json").exists():
        return read_json(folder / "encoder.json")
    rank, world = workers()
    check_slices(recipe.task.batch, world)
    place = torch.device(device)
    source = open_source(recipe.data, recipe.size)
    model, format = build(recipe, source)
    macs = encoder_macs(model, source.size)
    model = model.to(place, memory_format=torch.channels_last)
    state, damaged = checkpoint.newest(folder / "checkpoints")
    first = state["step"] if state else 0
    loader, batches = training_batches(
        source, batch=recipe.task.batch, steps=range(first, recipe.steps), seed=recipe.seed, rank=rank, world=world,
        device=place, processes=training.processes,
    )  # fmt: skip
    plan = Plan(
        steps=recipe.steps, seed=recipe.seed, optim=recipe.task.optim, precision=recipe.precision,
        accumulate=recipe.accumulate, compile=training.compile,
    )  # fmt: skip
    journal = Journal(training, source, state) if rank == 0 else None
    try:
        for path in damaged if journal else ():
            print(f"warning: damaged checkpoint passed over: {path}", file=sys.stderr)
        window: dict[str, torch.Tensor] = {}
        since = 0
        for step in train(model, batches, format, plan, state):
            for key, value in step.metrics.items():
                window[key] = window.get(key, 0) + value
            since += 1
            if step.number % training.log_every == 0 or step.number == recipe.steps:
                means = {key: float(value) / since for key, value in window.items()}
                window, since = {}, 0
                _check_finite(means, step.number, folder)
                if journal:
                    journal.log(step.number, means)
            if step.number % training.checkpoint_every == 0 and step.number < recipe.steps:
                saved = {**step.state(), "seconds": journal.seconds() if journal else 0.0}
                if journal:
                    checkpoint.save(folder / "checkpoints", saved)
        skipped = _union(loader.skipped)
        if journal is None:
            return {}
        return journal.complete(model, format, loader, macs, sorted(skipped))
    finally:
        if journal:
            journal.close()


def _check_finite(means: dict[str, float], step: int, folder: Path) -> None:
    if not math.isfinite(means["loss"]):
        raise Diverged(
            f"the loss is {means['loss']} at step {step}: try a lower --lr, more --warmup or --clip 1; "
            f"the checkpoints in {folder / 'checkpoints'} are from before"
        )


def _union(skipped) -> set[str]:
    if workers()[1] == 1:
        return set(skipped)
    found: list = [None] * workers()[1]
    torch.distributed.all_gather_object(found, set(skipped))
    return set().union(*found)


def prepare(recipe: Recipe, study: Study, where: Where) -> Training:
    """The run that `recipe` asks for, checked before anything starts. Raises BadInput."""
    source = open_source(recipe.data, recipe.size)
    recipe = recipe.resolved(source, where.place())
    workers = max(1, where.workers)
    check_slices(recipe.task.batch, workers)
    build(recipe, source)
    return Training(
        recipe=recipe, study=str(study.root), name=recipe.run_name(source), token=study.token,
        checkpoint_every=where.checkpoint_every, tracking=where.tracking, compile=where.compile,
        processes=where.processes if where.processes >= 0 else default_processes(workers, source),
    )  # fmt: skip


def default_processes(workers: int, source: Source) -> int:
    """Decoding processes for each worker: the cores shared out; none for images that lie in memory."""
    return 0 if hasattr(source.train, "images") else max(1, (os.cpu_count() or 1) // workers)
