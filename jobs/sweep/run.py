"""Runs a sweep's trials through Ray Tune."""

from collections.abc import Generator
from contextlib import closing

import cluster.tune as tune
from jobs.config.runtime import RuntimeConfig
from jobs.execution.plan import StudyPlan
from jobs.execution.run import console, ray_session
from jobs.execution.signals import on_signals
from jobs.pretraining.run import Training
from jobs.pretraining.worker import iter_metrics
from jobs.study.folder import Study, Terminated
from jobs.study.metrics import training_rows
from jobs.sweep.grid import Stopping
from jobs.sweep.trials import TrialRow, final_loss
from ssl_core.storage.files import exists, write_json
from ssl_core.storage.records import EncoderRecord
from ssl_core.task import task_name


def train_trials(
    study: Study, runtime: RuntimeConfig, stopping: Stopping, trainings: list[Training], rows: dict[str, TrialRow]
) -> None:
    """Trains what is missing of a sweep. Trials that ended before yield their losses again, for others to be
    compared with.

    Args:
        study: The study that the trials are runs of.
        runtime: Where and how they run.
        stopping: When to stop a trial.
        trainings: The trials.
        rows: By name, how each trial stands; errors are noted in it.

    Raises:
        Terminated: If a signal asked this process to stop, after all that run have saved.
        ClusterError: If the cluster does not answer, or stays too small.
        UserError: If the cluster's machines do not share the study's folder.
    """
    device = runtime.resolved_device()
    fresh = {name for name, one in rows.items() if one.state == "waiting"}
    groups = {_group(one) for one in trainings if one.name in fresh}
    trials = [
        tune.Trial(one.name, _group(one), iter_rows, (one, device), one.recipe.steps)
        for one in trainings
        if _group(one) in groups
    ]

    def on_end(end: tune.TrialEnd) -> None:
        if signal_received():  # nobody compared it with others
            return
        one = rows[end.name]
        one.error = end.error
        if not end.error and end.step < one.steps:
            write_json(study.run(end.name) / "stopped.json", {"step": end.step, "loss": end.loss})
        if end.name in fresh:
            state = "[red]failed[/] " if end.error else "complete" if end.step == one.steps else "stopped "
            loss = "" if end.loss is None else f", loss {end.loss:.4g}"
            console.print(
                f"{state} {one.task} {one.encoder} lr {one.lr:g} seed {one.seed}: step {end.step}{loss}",
                highlight=False,
            )

    with ray_session(StudyPlan(study, runtime, trainings, [])), on_signals() as signal_received:
        gpus = float(device == "cuda")
        tune.tune(
            trials,
            grace=stopping.asha_grace,
            reduction=stopping.asha_reduction,
            gpus=gpus,
            on_end=on_end,
            stop_requested=lambda: bool(signal_received()),
        )
    if number := signal_received():
        raise Terminated(number)


def _group(one: Training) -> str:
    """Returns the task and encoder of a trial: losses of others say nothing of this one."""
    return f"{task_name(one.recipe.task)} {one.recipe.encoder}"


def iter_rows(one: Training, device: str) -> Generator[dict, None, None]:
    """Yields the rows of a run: those of earlier attempts, then new ones; the last when its encoder is there."""
    steps, last = one.recipe.steps, 0
    for old in training_rows(one.folder / "metrics.jsonl"):
        if last < old["step"] < steps:
            last = old["step"]
            yield old
    if exists(one.folder / "stopped.json") and not exists(one.folder / "encoder.json"):
        return
    with closing(iter_metrics(one, device)) as rows:
        for new in rows:
            if last < new["step"] < steps:
                yield new
    yield {"step": steps, "loss": final_loss(EncoderRecord.read(one.folder / "encoder.json"))}
