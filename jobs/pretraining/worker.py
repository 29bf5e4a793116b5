"""Pretraining runs: what one is, and the function that a worker trains it with."""

import math
import sys
import time
from collections.abc import Generator
from pathlib import Path

import torch

import jobs.pretraining.compilers as compilers
import ssl_core.storage.checkpoint as checkpoint
from cluster.heartbeat import current
from cluster.retry import Preempted
from cluster.watchdog import Watchdog
from jobs.config.interval import Clock
from jobs.config.recipe import Recipe
from jobs.pretraining.recorder import Journal
from jobs.pretraining.run import Training, build
from jobs.study.warning_log import warn
from ssl_core.data.dataset import Source, open_source
from ssl_core.data.loaders.prefetch import Waited
from ssl_core.data.loaders.select import training_batches
from ssl_core.errors import BadInput, DiskFull, Diverged, OutOfMemory, StoreFailed
from ssl_core.storage.async_writer import FULL, Behind
from ssl_core.storage.files import exists, read_json, write_text
from ssl_core.storage.retry import briefly
from ssl_core.task import Format, Pretext
from ssl_core.train import Plan, encoder_macs, train, workers

FIRST_STEP = 1200.0  # seconds: what is compiled or fetched at the beginning is no hang


def run(training: Training, device: str) -> dict:
    """Trains in this process, one of the group's workers -> the content of encoder.json.

    Finishes at once if the run is already complete; continues from its newest good checkpoint otherwise. Raises
    BadInput, Diverged, OutOfMemory or DiskFull, which trying again would not help; StoreFailed; and Preempted, when
    it was told to leave and has saved.
    """
    rows = followed(training, device)
    while True:
        try:
            next(rows)
        except StopIteration as end:
            return end.value


def followed(training: Training, device: str) -> Generator[dict, None, dict]:
    """The same, row by row of metrics.jsonl as they are written. Closed early, it saves and ends there; called again,
    it goes on from its last checkpoint."""
    if exists(training.folder / "encoder.json"):
        return read_json(training.folder / "encoder.json")
    try:
        with Behind(lambda said: warn(training.root, said)) as behind:
            return (yield from _trained(training, device, behind))
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(_advice(training, error)) from error
    except OSError as error:
        if error.errno in FULL:
            raise DiskFull(f"no room left: {error}; make room, and the same command continues") from error
        raise


def _trained(training: Training, device: str, behind: Behind) -> Generator[dict, None, dict]:
    folder, recipe, pulse = training.folder, training.recipe, current()
    rank, world = workers()
    place = torch.device(device)
    if training.compile:
        compilers.check(place.type)
    source, model, format = _open(recipe)
    macs = encoder_macs(model, source.size)
    model = model.to(place, memory_format=torch.channels_last)
    state, damaged = _agreed(folder / "checkpoints")
    first = state["step"] if state else 0
    loader, batches = training_batches(
        source,
        batch=recipe.task.batch,
        steps=range(first, recipe.steps),
        seed=recipe.seed,
        rank=rank,
        world=world,
        device=place,
        loader=training.loader,
        threads=training.threads,
        warn=lambda said: warn(training.root, said),
    )
    plan = Plan(
        steps=recipe.steps,
        seed=recipe.seed,
        optim=recipe.task.optim,
        precision=recipe.precision,
        accumulate=recipe.accumulate,
        compile=training.compile,
    )
    journal = Journal(training, source, state, behind, pulse.faults, world) if rank == 0 else None
    watchdog = Watchdog(training.hang_after, lambda stacks: _hung(training, rank, pulse.step, stacks), FIRST_STEP)
    try:
        if journal and damaged:
            warn(training.root, f"damaged checkpoints passed over: {' '.join(map(str, damaged))}")
            checkpoint.discard(damaged)
        window, batches, clock = Window(state), Waited(batches), Clock(training.checkpoint_every)
        pulse.beat(first)
        with watchdog:
            steps = train(model, batches, format, plan, state)
            del state  # as large as the model and its optimiser; `train` lets go of it too
            for step in steps:
                watchdog.fed()
                pulse.beat(step.number)
                window.add(step.metrics)
                if step.number % training.log_every == 0 or step.number == recipe.steps:
                    means = window.means()
                    _check_finite(means, step.number, folder)
                    if journal:
                        journal.log(step.number, means, batches.share())
                        try:
                            yield journal.row
                        except GeneratorExit:
                            if step.number < recipe.steps:
                                journal.checkpoint({**step.state(), "window": window.state()})
                            journal.stopped(step.number)
                            try:
                                behind.settle()
                            except (OSError, StoreFailed) as error:
                                warn(training.root, f"{training.name}: not saved at step {step.number}: {error}")
                            raise
                # rank 0 alone saves, so it alone leaves; Ray then ends the others, who wait for it
                if journal and (clock.due(step.number) or pulse.leaving) and step.number < recipe.steps:
                    journal.checkpoint({**step.state(), "window": window.state()})
                    if pulse.leaving:
                        behind.settle()
                        raise Preempted(f"told to leave; saved at step {step.number}")
        skipped = set().union(*_gathered(set(loader.skipped)))
        if journal is None:
            return {}
        return journal.complete(model, format, loader, macs, sorted(skipped))
    finally:
        if journal:
            journal.close()


def _hung(training: Training, rank: int, step: int | None, stacks: str) -> None:
    """Keeps the stacks of a worker that makes no progress."""
    path = training.root / "logs" / f"hung-{training.name}-worker{rank}-{time.time_ns() // 10**9}.txt"
    said = f"{training.name}: worker {rank} made no progress for {training.hang_after:.0f} s after step {step}"
    print(stacks, file=sys.stderr, flush=True)
    with briefly():
        write_text(path, f"{said}\n{stacks}")
    warn(training.root, f"{said}; its stacks are in {path}; it is started again")


def _advice(training: Training, error: Exception) -> str:
    """What to do about too little memory; none of it continues this run, since a worker's share decides batch norm."""
    task, recipe = training.recipe.task, training.recipe
    ways = [
        "a smaller --size",
        "more --workers, which share a batch",
        "--loader torch, which keeps images out of the GPU",
    ]
    if recipe.precision != "bf16":
        ways.append("--precision bf16")
    if task.side_by_side > 1:
        ways.append(
            "a smaller --batch, though each image is then compared with fewer (a larger --accumulate does the same)"
        )
    elif recipe.accumulate < task.batch:
        ways = ["a larger --accumulate", "a smaller --batch", *ways]
    return (
        f"out of GPU memory in {training.name} (--batch {task.batch}, --accumulate {recipe.accumulate}): try "
        f"{', '.join(ways[:-1])}, or {ways[-1]} ({str(error).splitlines()[0]})"
    )


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


def _agreed(folder: Path) -> tuple[dict | None, list[Path]]:
    """The newest checkpoint that all workers can read, and the damaged ones that this one passed over."""
    state, damaged = checkpoint.newest(folder)
    steps = _gathered(state["step"] if state else 0)
    if state and state["step"] > min(steps):
        state, _ = checkpoint.newest(folder, at_most=min(steps))
    again = _gathered(state["step"] if state else 0)
    if len(set(again)) > 1 or (min(again) == 0 and max(steps) > 0):  # a machine without the shared folder, say
        raise StoreFailed(f"{folder}: workers see checkpoints of steps {steps}")
    return state, damaged


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
