"""Trials of a sweep: how each stands, read from what its run has left, and which learning rate is the best."""

from dataclasses import dataclass, field
from statistics import mean

from rich import box
from rich.table import Table

from jobs.cells import Evaluation, cell_path
from jobs.judged import of_run
from jobs.layout import Study
from jobs.training import Training
from ssl_core.files import exists, read_json
from ssl_core.task import name_of


@dataclass
class Row:
    """One trial, as sweep.json has it."""

    task: str
    encoder: str
    lr: float
    seed: int
    run: str
    steps: int
    state: str = "waiting"  # complete, stopped, failed or waiting
    step: int = 0
    loss: float | None = None
    held_out: float | None = None  # linear accuracy on held-out training images, once it is judged
    error: str | None = field(default=None)


def row(study: Study, one: Training, error: str | None = None) -> Row:
    """How a trial stands, read from what its run has left."""
    recipe = one.recipe
    found = Row(name_of(recipe.task), recipe.encoder, recipe.task.optim.lr, recipe.seed, one.name, recipe.steps)
    if exists(one.folder / "encoder.json"):
        described = read_json(one.folder / "encoder.json")
        found.state, found.step, found.loss = "complete", described["steps"], described["pretext"]["loss"]
        found.held_out = _held_out(study, described)
    elif exists(one.folder / "stopped.json"):
        found.state = "stopped"
        found.step, found.loss = (read_json(one.folder / "stopped.json")[key] for key in ("step", "loss"))
    elif error:
        found.state, found.error = "failed", error
    return found


def _held_out(study: Study, described: dict) -> float | None:
    """Test images choose nothing, so the test accuracy is not looked at."""
    evaluation, one = Evaluation.told(study), of_run(described)
    if evaluation is None or "linear" not in evaluation.protocols:
        return None
    path = cell_path(study, one, "linear", evaluation, one.source.digest)
    return read_json(path)["chosen"]["held_out"] if path and exists(path) else None


def best(rows: list[Row]) -> dict[str, dict[str, dict]]:
    """task: encoder: {lr, by, value}. Among learning rates that are complete with every seed, by the mean over seeds
    of the held-out linear accuracy if all of them were judged, else of the pretext loss."""
    found: dict[str, dict[str, dict]] = {}
    for task, encoder in dict.fromkeys((one.task, one.encoder) for one in rows):
        by_lr: dict[float, list[Row]] = {}
        for one in rows:
            if (one.task, one.encoder) == (task, encoder):
                by_lr.setdefault(one.lr, []).append(one)
        complete = {lr: of for lr, of in by_lr.items() if all(one.state == "complete" for one in of)}
        if not complete:
            continue
        if all(one.held_out is not None for of in complete.values() for one in of):
            by, values = "held-out linear accuracy", {lr: mean(o.held_out for o in of) for lr, of in complete.items()}
            lr = max(values, key=lambda lr: values[lr])
        else:
            by, values = "pretext loss", {lr: mean(o.loss for o in of) for lr, of in complete.items()}
            lr = min(values, key=lambda lr: values[lr])
        found.setdefault(task, {})[encoder] = {"lr": lr, "by": by, "value": values[lr]}
    return found


def table(rows: list[Row]) -> Table:
    """All trials, for the terminal; with their encoders if these differ."""
    view = Table(title="sweep", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    several = len({one.encoder for one in rows}) > 1
    for name in ("task", *(["encoder"] if several else []), "lr", "seed", "steps", "loss", "held-out linear", "state"):
        view.add_column(name, justify="left" if name in ("task", "encoder", "state") else "right", no_wrap=True)
    for one in rows:
        view.add_row(
            one.task, *([one.encoder] if several else []), f"{one.lr:g}", str(one.seed), f"{one.step}/{one.steps}",
            "" if one.loss is None else f"{one.loss:.4g}",
            "" if one.held_out is None else f"{100 * one.held_out:.1f} %", one.state,
        )  # fmt: skip
    return view
