"""Runs `tilespin sweep`: finds the learning rate of each task by many short pretrainings with early stopping."""

from dataclasses import asdict, dataclass, replace

from rich.console import Console

from jobs.config.options import VerbOptions
from jobs.config.parsing import parse
from jobs.config.plugins import PluginOptions
from jobs.config.runtime import RuntimeConfig, WorkerRange
from jobs.pretraining.run import prepare_training
from jobs.study.folder import JobsFailed, Study
from jobs.sweep.grid import ROWS, Grid, Stopping
from jobs.sweep.run import train_trials
from jobs.sweep.trials import best_learning_rates, trial_row, trials_table
from jobs.tracking.tracker import print_sync_command
from ssl_core.errors import UserError
from ssl_core.storage.files import write_json


@dataclass(frozen=True, kw_only=True)
class Options(VerbOptions):
    """Find each task's learning rate: train every combination for the same budget through Ray Tune, stop early what
    falls behind, and name the best. Each trial is a run of the study, which tilespin evaluate can evaluate. The same
    command again trains only what is missing."""

    grid: Grid = Grid()
    stopping: Stopping = Stopping()
    runtime: RuntimeConfig = RuntimeConfig(name="sweep", workers="1")
    plugins: PluginOptions = PluginOptions()


def main(arguments: list[str]) -> None:
    """Runs `tilespin sweep` with these command-line arguments."""
    options = parse(Options, "sweep", arguments)
    options.stopping.check()
    runtime = options.runtime.checked()
    if runtime.worker_range != WorkerRange(1, 1):
        raise UserError(f"--workers {runtime.workers}: each training of a sweep has one worker: leave it at 1")
    study = Study.open(runtime.storage, runtime.name or "sweep")
    trainings = [prepare_training(recipe, study, runtime) for recipe in options.grid.recipes()]
    trainings = [replace(one, log_every=max(1, one.recipe.steps // ROWS)) for one in trainings]
    with study.lock():
        study.describe(sweep={**asdict(options.grid), **asdict(options.stopping)})
        rows = {one.name: trial_row(study, one) for one in trainings}
        if any(one.state == "waiting" for one in rows.values()):
            train_trials(study, runtime, options.stopping, trainings, rows)
        rows = {one.name: trial_row(study, one, rows[one.name].error) for one in trainings}
        chosen = best_learning_rates(list(rows.values()))
        write_json(study.root / "sweep.json", {"trials": [asdict(one) for one in rows.values()], "best": chosen})
    Console().print(trials_table(list(rows.values())))
    for task, of in chosen.items():
        for encoder, one in of.items():
            print(f"{task}, {encoder}: best learning rate {one['lr']:g} by {one['by']}")
    print(f"numbers: {study.root / 'sweep.json'}")
    if any(one.state == "complete" and one.val_accuracy is None for one in rows.values()):
        print(f"to choose by held-out accuracy, run: tilespin evaluate {study.root}, and then this command again")
    print_sync_command(study)
    failed = [one for one in rows.values() if one.state in ("failed", "waiting")]
    if failed:
        raise JobsFailed(f"{len(failed)} of {len(rows)} trials failed: {failed[0].error}; the same command tries again")
