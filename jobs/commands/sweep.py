"""`tilespin sweep`: the learning rate of each task, from one sweep of equal size, with early stopping."""

from collections.abc import Generator
from contextlib import closing
from dataclasses import asdict, dataclass, replace

from rich.console import Console

import cluster.tune as tune
from jobs.commands.study import recipes
from jobs.config.parsing import parse
from jobs.config.presets import StudyConfig
from jobs.config.runtime import Group, Where
from jobs.execution.run import Plan, console, room
from jobs.execution.signals import on_signals
from jobs.pretraining.worker import Training, followed, prepare
from jobs.study.folder import JobsFailed, Left, Study
from jobs.study.metrics import of_training
from jobs.sweep.trials import Row, best, row, table
from jobs.tracking.tracker import say_sync
from ssl_core.errors import BadInput, choose
from ssl_core.storage.files import exists, read_json, write_json
from ssl_core.task import name_of, tasks

ROWS = 50  # of metrics.jsonl in each trial: where one can be stopped


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What is tried: every combination, each for the same budget."""

    tasks: tuple[str, ...] = ()
    """which tasks; default: all there are"""
    encoders: tuple[str, ...] = ("convnet",)
    factors: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0)
    """learning rates, as multiples of each task's own"""
    lrs: tuple[float, ...] = ()
    """learning rates themselves, for every task, instead of --factors"""
    seeds: tuple[int, ...] = (0,)
    data: str = "cifar10"
    """as in tilespin pretrain"""
    size: int | None = None
    """side in pixels that images are delivered at; default: the dataset's own, 96 for a folder"""
    budget: float = 280.0
    """GMACs (10^9 multiply-accumulates) of encoder forward and backward for each trial"""

    def recipes(self):
        """The recipe of each trial. Raises BadInput."""
        known = tasks()
        for name in self.tasks:
            if name not in known:
                raise BadInput(f"--tasks {name}: {choose(name, known)}")
        for option in ("encoders", "seeds", "lrs" if self.lrs else "factors"):
            values = getattr(self, option)
            if not values or len(set(values)) < len(values):
                raise BadInput(f"--{option} {' '.join(map(str, values))}: expected at least one, each once")
        found = []
        for encoder in self.encoders:
            config = StudyConfig(
                preset="sweep", tasks=tuple(known[name].Config() for name in self.tasks or known), data=self.data,
                size=self.size, encoder=encoder, budget=self.budget,
            )  # fmt: skip
            for one in recipes(config):
                optim = one.task.optim
                for lr in self.lrs or (float(f"{factor * optim.lr:.6g}") for factor in self.factors):
                    task = replace(one.task, optim=replace(optim, lr=lr))
                    found += [replace(one, task=task, seed=seed) for seed in self.seeds]
        return found


@dataclass(frozen=True, kw_only=True)
class Stopping:
    """Asynchronous successive halving on the pretext loss, among trials of the same task and encoder."""

    grace: float = 0.2
    """fraction of its steps that each trial gets; 1 stops none"""
    reduction: float = 3.0
    """at --grace, and whenever it is this many times as far, a trial goes on only among the best 1 / --reduction"""

    def check(self) -> None:
        """Raises BadInput."""
        if not 0 < self.grace <= 1:
            raise BadInput(f"--grace is {self.grace}, expected a fraction above 0 and at most 1")
        if not 1 < self.reduction <= 100:
            raise BadInput(f"--reduction is {self.reduction}, expected more than 1 and at most 100")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Find each task's learning rate: train every combination for the same budget through Ray Tune, stop early what
    falls behind, and name the best. Each trial is a run of the study, which tilespin evaluate judges. Again: only what
    is missing."""

    grid: Grid = Grid()
    stopping: Stopping = Stopping()
    where: Where = Where(name="sweep", workers="1")


def main(arguments: list[str]) -> None:
    options = parse(Options, "sweep", arguments)
    options.stopping.check()
    where = options.where.checked()
    if where.group != Group(1, 1):
        raise BadInput(f"--workers {where.workers}: each training of a sweep has one worker: leave it at 1")
    study = Study.at(where.storage, where.name or "sweep")
    trainings = [prepare(recipe, study, where) for recipe in options.grid.recipes()]
    trainings = [replace(one, log_every=max(1, one.recipe.steps // ROWS)) for one in trainings]
    with study.held():
        study.describe(sweep={**asdict(options.grid), **asdict(options.stopping)})
        rows = {one.name: row(study, one) for one in trainings}
        if any(one.state == "waiting" for one in rows.values()):
            _train(study, where, options.stopping, trainings, rows)
        rows = {one.name: row(study, one, rows[one.name].error) for one in trainings}
        chosen = best(list(rows.values()))
        write_json(study.root / "sweep.json", {"trials": [asdict(one) for one in rows.values()], "best": chosen})
    Console().print(table(list(rows.values())))
    for task, of in chosen.items():
        for encoder, one in of.items():
            print(f"{task}, {encoder}: best learning rate {one['lr']:g} by {one['by']}")
    print(f"numbers: {study.root / 'sweep.json'}")
    if any(one.state == "complete" and one.held_out is None for one in rows.values()):
        print(f"to choose by held-out accuracy: tilespin evaluate {study.root}, and then this again")
    say_sync(study)
    failed = [one for one in rows.values() if one.state in ("failed", "waiting")]
    if failed:
        raise JobsFailed(f"{len(failed)} of {len(rows)} trials failed: {failed[0].error}; the same command tries again")


def _train(study: Study, where: Where, stopping: Stopping, trainings: list[Training], rows: dict[str, Row]) -> None:
    """Trains what is missing. Trials that ended before tell their losses again, for others to be compared with. Raises
    Left, if a signal asked for it, after all that run have saved."""
    device = where.place()
    fresh = {name for name, one in rows.items() if one.state == "waiting"}
    groups = {_group(one) for one in trainings if one.name in fresh}
    trials = [
        tune.Trial(one.name, _group(one), told, (one, device), one.recipe.steps)
        for one in trainings if _group(one) in groups
    ]  # fmt: skip

    def ended(end: tune.Ended) -> None:
        if signal_received():  # nobody compared it with others
            return
        one = rows[end.name]
        one.error = end.error
        if not end.error and end.step < one.steps:
            write_json(study.run(end.name) / "stopped.json", {"step": end.step, "loss": end.loss})
        if end.name in fresh:
            state = "[red]failed[/] " if end.error else "complete" if end.step == one.steps else "stopped "
            loss = "" if end.loss is None else f", loss {end.loss:.4g}"
            console.print(f"{state} {one.task} {one.encoder} lr {one.lr:g} seed {one.seed}: step {end.step}{loss}",
                          highlight=False)  # fmt: skip

    with room(Plan(study, where, trainings, [])), on_signals() as signal_received:
        gpus = float(device == "cuda")
        tune.tune(
            trials,
            grace=stopping.grace,
            reduction=stopping.reduction,
            gpus=gpus,
            ended=ended,
            stop_requested=lambda: bool(signal_received()),
        )
    if number := signal_received():
        raise Left(number)


def _group(one: Training) -> str:
    """Losses of other tasks and encoders say nothing of this one."""
    return f"{name_of(one.recipe.task)} {one.recipe.encoder}"


def told(one: Training, device: str) -> Generator[dict, None, None]:
    """The rows of a run: those of earlier attempts, then new ones; the last when its encoder is there."""
    steps, last = one.recipe.steps, 0
    for old in of_training(one.folder / "metrics.jsonl"):
        if last < old["step"] < steps:
            last = old["step"]
            yield old
    if exists(one.folder / "stopped.json") and not exists(one.folder / "encoder.json"):
        return
    with closing(followed(one, device)) as rows:
        for new in rows:
            if last < new["step"] < steps:
                yield new
    yield {"step": steps, "loss": read_json(one.folder / "encoder.json")["pretext"]["loss"]}
