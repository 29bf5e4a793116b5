"""Runs that a study has already and that differ in little from one that is about to start: why it is not continued."""

from typing import Any

from jobs.pretraining.run import Training
from ssl_core.data.dataset import open_source
from ssl_core.errors import BadInput
from ssl_core.storage.files import exists, found, read_json

FEW = 3  # options; runs that differ in more have little to do with each other


def unlike_earlier(training: Training) -> str:
    """One line that names the most similar run of the same task in the study and what differs; "" if there is none, or
    this run was begun before."""
    if exists(training.folder / "config.json"):
        return ""
    recipe = training.recipe
    mine = flat(recipe.identity(open_source(recipe.data, recipe.size)))
    nearest: dict[str, str] = {}
    name = ""
    for config in found(training.folder.parent, f"{training.name.rpartition('-')[0]}-*/config.json"):
        try:
            theirs = flat(read_json(config))
        except BadInput:  # damaged: its own run says so
            continue
        changed = {
            key: _changed(key, theirs.get(key), value) for key, value in mine.items() if theirs.get(key) != value
        }
        if not name or len(changed) < len(nearest):
            name, nearest = config.parent.name, changed
    if not 0 < len(nearest) <= FEW:
        return ""
    return f"{training.name} is trained from the beginning, beside {name}: {', '.join(nearest.values())}"


def _changed(key: str, old: Any, new: Any) -> str:
    if key == "dataset":
        return "its images are others (a file was added, removed or changed)"
    return f"{key} {new}, not {'the default' if old is None else old}"


def flat(config: dict) -> dict[str, Any]:
    """The options of a run's identity by their own names, however deep they lie."""
    options = {}
    for name, value in config.items():
        options |= flat(value) if isinstance(value, dict) else {name: value}
    return options
