"""`tilespin pretrain TASK`: trains an encoder on one pretext task, from wherever the last attempt stopped."""

from dataclasses import dataclass, fields, make_dataclass
from pathlib import Path
from typing import Any

from jobs.layout import Study
from jobs.options import one_of, parse
from jobs.recipe import Recipe
from jobs.tracking import say_sync
from jobs.training import prepare
from jobs.where import Where
from jobs.work import Plan, do
from ssl_core.files import read_json
from ssl_core.task import tasks


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train an encoder on one pretext task. The same command again continues a run that was stopped."""

    recipe: Recipe
    where: Where = Where()


def options_type() -> Any:
    """Options with a sub-command for every task there is."""
    choice = one_of({name: task.Config() for name, task in tasks().items()})
    described = [(f.name, choice if f.name == "task" else f.type, f) for f in fields(Recipe)]
    recipe = make_dataclass("Recipe", described, bases=(Recipe,), frozen=True, kw_only=True)
    made = make_dataclass("Options", [("recipe", recipe)], bases=(Options,), frozen=True, kw_only=True)
    made.__doc__ = Options.__doc__
    return made


def main(arguments: list[str]) -> None:
    options = parse(options_type(), "pretrain", arguments)
    recipe = Recipe(**{f.name: getattr(options.recipe, f.name) for f in fields(Recipe)})
    where = options.where.checked()
    study = Study.at(where.storage, where.name or Path(recipe.data).resolve().name)
    training = prepare(recipe, study, where)
    with study.held():
        study.describe()
        do(Plan(study, where, [training], []))
    described = read_json(training.folder / "encoder.json")
    if described["skipped"]:
        print(f"{len(described['skipped'])} files could not be decoded and were skipped")
    pretext = ", ".join(f"{name} {value:.3f}" for name, value in described["pretext"].items())
    print(f"{training.folder}: {described['steps']} steps, {described['images']:,} images, {pretext}")
    say_sync(study)
