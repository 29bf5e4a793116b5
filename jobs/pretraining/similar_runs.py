"""Finds runs that differ in little from one that is about to start, and says why they are not continued."""

import json
from typing import Any

from jobs.pretraining.run import Training
from ssl_core.data.decoding.crops import MIN_AREA
from ssl_core.errors import UserError
from ssl_core.storage.files import exists, glob_files, read_json

FEW = 3  # options; runs that differ in more have little to do with each other


def differs_from_earlier(training: Training) -> str:
    """Returns one line that names the most similar run of the same task in the study and what differs.

    It is "" if there is no such run, or this run was begun before.
    """
    if exists(training.folder / "config.json"):
        return ""
    recipe = training.recipe
    identity = recipe.identity(recipe.source())
    mine = flatten(json.loads(json.dumps(identity)))  # a file has lists where this has tuples
    nearest: dict[str, str] = {}
    name = ""
    for config in glob_files(training.folder.parent, f"{training.name.rpartition('-')[0]}-*/config.json"):
        try:
            # which was no option when earlier runs began
            theirs = {"loader_min_area": MIN_AREA, **flatten(read_json(config))}
        except UserError:  # damaged: its own run says so
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
    if key == "plugin":
        return "the source of its plug-in is another"
    return f"{key} {new}, not {'the default' if old is None else old}"


def flatten(config: dict) -> dict[str, Any]:
    """Returns the options of a run's identity by their own names, however deep they lie."""
    options = {}
    for name, value in config.items():
        options |= flatten(value) if isinstance(value, dict) else {name: value}
    return options
