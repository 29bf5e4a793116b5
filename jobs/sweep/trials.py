"""Reads how each trial of a sweep stands from what its run has left, and finds the best learning rate."""

from dataclasses import dataclass, field
from statistics import mean

from rich import box
from rich.table import Table

from jobs.config.evaluation import Evaluation
from jobs.evaluation.encoders import from_run
from jobs.evaluation.records import record_path
from jobs.pretraining.run import Training
from jobs.study.folder import Study
from jobs.sweep.choice import Candidate, choose_learning_rate
from ssl_core.storage.files import exists, read_json
from ssl_core.storage.records import EncoderRecord, EvaluationRecord
from ssl_core.task import task_name


@dataclass
class TrialRow:
    """Describes one trial, as sweep.json has it."""

    task: str
    encoder: str
    lr: float
    seed: int
    run: str
    steps: int
    state: str = "waiting"  # complete, stopped, failed or waiting
    step: int = 0
    loss: float | None = None
    val_accuracy: float | None = None  # linear accuracy on held-out training images, once it is evaluated
    val_images: int = 0
    error: str | None = field(default=None)


def trial_row(study: Study, one: Training, error: str | None = None) -> TrialRow:
    """Returns how a trial stands, read from what its run has left.

    Args:
        study: The study.
        one: The trial.
        error: Why it failed just now, or None.
    """
    recipe = one.recipe
    found = TrialRow(task_name(recipe.task), recipe.encoder, recipe.task.optim.lr, recipe.seed, one.name, recipe.steps)
    if exists(one.folder / "encoder.json"):
        record = EncoderRecord.read(one.folder / "encoder.json")
        found.state, found.step, found.loss = "complete", recipe.steps, final_loss(record)
        found.val_accuracy, found.val_images = _val_accuracy(study, record)
    elif exists(one.folder / "stopped.json"):
        found.state = "stopped"
        found.step, found.loss = (read_json(one.folder / "stopped.json")[key] for key in ("step", "loss"))
    elif error:
        found.state, found.error = "failed", error
    return found


def final_loss(record: EncoderRecord) -> float:
    """Returns the last pretext loss of a finished run."""
    assert record.training is not None  # a run's record says how it was trained
    return record.training.pretext["loss"]


def _val_accuracy(study: Study, trained: EncoderRecord) -> tuple[float | None, int]:
    """Returns the held-out linear accuracy, and of how many images it is; (None, 0) if it was not evaluated.

    Test images choose nothing, so the test accuracy is not looked at.
    """
    evaluation, one = Evaluation.of_study(study), from_run(trained)
    if evaluation is None or "linear" not in evaluation.protocols:
        return None, 0
    path = record_path(study, one, "linear", evaluation, one.source.digest)
    if not (path and exists(path)):
        return None, 0
    record = EvaluationRecord.read(path)
    return record.chosen["val_score"], record.dataset.images["val"]


def best_learning_rates(rows: list[TrialRow]) -> dict[str, dict[str, dict]]:
    """Returns, by task and encoder, the best of the learning rates that are complete with every seed.

    `choose_learning_rate` says how; both of its numbers are means over seeds. `supervised` has seen the labels of the
    images that are held out from the probe.

    Args:
        rows: All trials.

    Returns:
        For each task and encoder: {"lr", "by", "loss", "val_accuracy"}.
    """
    found: dict[str, dict[str, dict]] = {}
    for task, encoder in dict.fromkeys((one.task, one.encoder) for one in rows):
        by_lr: dict[float, list[TrialRow]] = {}
        for one in rows:
            if (one.task, one.encoder) == (task, encoder):
                by_lr.setdefault(one.lr, []).append(one)
        if complete := [_candidate(lr, of) for lr, of in by_lr.items() if all(one.state == "complete" for one in of)]:
            best, by = choose_learning_rate(complete)
            accuracy = best.val_accuracy if all(one.val for one in complete) else None
            found.setdefault(task, {})[encoder] = {"lr": best.lr, "by": by, "loss": best.loss, "val_accuracy": accuracy}
    return found


def _candidate(lr: float, rows: list[TrialRow]) -> Candidate:
    """Returns a learning rate with the means of its trials, one for each seed."""
    accuracies = [one.val_accuracy for one in rows if one.val_accuracy is not None]
    whole = len(accuracies) == len(rows)
    val = {"": (mean(accuracies), min(one.val_images for one in rows))} if whole else {}
    return Candidate(lr, mean(one.loss for one in rows if one.loss is not None), val)


def trials_table(rows: list[TrialRow]) -> Table:
    """Returns a table of all trials for the terminal, with their encoders if these differ."""
    view = Table(title="sweep", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    several = len({one.encoder for one in rows}) > 1
    for name in ("task", *(["encoder"] if several else []), "lr", "seed", "steps", "loss", "held-out linear", "state"):
        view.add_column(name, justify="left" if name in ("task", "encoder", "state") else "right", no_wrap=True)
    for one in rows:
        view.add_row(
            one.task,
            *([one.encoder] if several else []),
            f"{one.lr:g}",
            str(one.seed),
            f"{one.step}/{one.steps}",
            "" if one.loss is None else f"{one.loss:.4g}",
            "" if one.val_accuracy is None else f"{100 * one.val_accuracy:.1f} %",
            one.state,
        )
    return view
