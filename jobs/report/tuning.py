"""Says which learning rates a study trained with: those that it chose itself, or the tasks' own."""

from collections.abc import Sequence
from typing import Any

from ssl_core.errors import some
from ssl_core.storage.study_record import StudyRecord, TuningRecord

# What the tasks' own rates were chosen on, see docs/log.md: the held-out images of these data, with this encoder
TUNED_ON = {"data": "cifar10", "encoders": ["convnet"]}


def tuning_notes(study: StudyRecord) -> list[str]:
    """Returns in sentences how the learning rates of a study's recipes were chosen, and what that cost."""
    config = study.config
    if config is None or not config.get("tasks"):
        return []  # not made by `tilespin study`, which trains tasks side by side
    if not study.tuning:
        return [] if _is_tuned_on(config) else [_untuned()]
    first, share = study.tuning[0], config["tune_fraction"]
    count = len(first.trials) + len(first.diverged)
    lines = [
        f"Each recipe tried {count} learning rates for {share:.3g} of its length, which cost it {count * share:.3g} "
        f"times its length besides; chosen by {_chosen_by(study.tuning)}."
    ]
    edges = [f"{_name(one, study.tuning)} ({one.lr:.3g})" for one in study.tuning if one.at_edge]
    if edges:
        lines.append(f"At the edge of what was tried, so that a rate beyond may be better: {some(edges, 5)}.")
    diverged = [
        f"{_name(one, study.tuning)} at {', '.join(f'{lr:.3g}' for lr in one.diverged)}"
        for one in study.tuning
        if one.diverged
    ]
    if diverged:
        lines.append(f"Diverged, and not chosen: {some(diverged, 5)}.")
    return lines


def _is_tuned_on(config: dict[str, Any]) -> bool:
    return config["pretrain"]["data"] == TUNED_ON["data"] and list(config["encoders"]) == TUNED_ON["encoders"]


def _untuned() -> str:
    encoder, data = TUNED_ON["encoders"][0], "CIFAR-10"
    return (
        f"Learning rates are not tuned for these images and encoders: each task's own was chosen on {data} with "
        f"{encoder}; --tune 3 tries three for each."
    )


def _chosen_by(tuning: Sequence[TuningRecord]) -> str:
    """Returns what chose, and of which datasets."""
    names = dict.fromkeys(name for one in tuning for trial in one.trials for name in trial.val_accuracy)
    if not names:
        return "the pretext loss, for there are no labels"
    return f"linear accuracy on held-out training images of {'; '.join(names)}"


def _name(one: TuningRecord, tuning: Sequence[TuningRecord]) -> str:
    """Returns a recipe's name with what sets it apart from the others."""
    parts = [getattr(one, name) for name in ("encoder", "init") if len({getattr(of, name) for of in tuning}) > 1]
    return ", ".join([one.task, *parts])


def tuning_rows(study: StudyRecord) -> list[dict[str, str]]:
    """Returns the rows of a table of all that was tried: what, with which rate, and what it came to.

    The keys are the columns' names.
    """
    found = []
    for one in study.tuning:
        names = list(dict.fromkeys(name for trial in one.trials for name in trial.val_accuracy))
        for trial in one.trials:
            found.append(
                {
                    "recipe": _name(one, study.tuning),
                    "learning rate": f"{trial.lr:.3g}",
                    **{f"held-out linear, {name}": f"{trial.val_accuracy[name]:.1%}" for name in names},
                    "pretext loss": f"{trial.loss:.4g}",
                    "steps": f"{trial.steps:,}",
                    "TMACs": f"{trial.macs / 1e12:.2f}",
                    "seconds": f"{trial.seconds:.0f}",
                    "chosen": "yes" if trial.lr == one.lr else "",
                }
            )
    return found
