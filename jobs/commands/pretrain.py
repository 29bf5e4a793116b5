"""Runs `tilespin pretrain TASK`: trains an encoder on one pretext task, from wherever the last attempt stopped."""

from dataclasses import dataclass, field, fields, make_dataclass, replace
from pathlib import Path
from typing import Any

from jobs.config.parsing import parse, subcommand_choice
from jobs.config.plugins import PluginOptions, load_plugins
from jobs.config.published import PUBLISHED
from jobs.config.recipe import PretrainConfig
from jobs.config.runtime import RuntimeConfig
from jobs.execution.run import StudyPlan, run_plan
from jobs.pretraining.run import prepare_training
from jobs.study.folder import Study
from jobs.tracking.tracker import print_sync_command
from ssl_core.storage.files import read_json
from ssl_core.task import tasks


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train an encoder on one pretext task, or by the recipe of a paper. The same command again continues a run that
    was stopped."""

    recipe: PretrainConfig
    runtime: RuntimeConfig = RuntimeConfig()
    plugins: PluginOptions = PluginOptions()


def options_type() -> Any:
    """Returns a type like `Options` with a sub-command for every task, and for every pretraining of the literature."""
    recipes = {name: PretrainConfig(task=task.Config()) for name, task in tasks().items()}
    recipes |= {name: published.recipe for name, published in PUBLISHED.items()}
    described = {name: task.Config.__doc__ or "" for name, task in tasks().items()}
    described |= {name: published.description for name, published in PUBLISHED.items()}
    choice = subcommand_choice({name: _typed(recipe) for name, recipe in recipes.items()}, described)
    made = make_dataclass("Options", [("recipe", choice)], bases=(Options,), frozen=True, kw_only=True)
    made.__doc__ = Options.__doc__
    return made


def _typed(recipe: PretrainConfig) -> PretrainConfig:
    """Returns an equal recipe whose type names the options of its task, so that the command line shows them."""
    task = ("task", type(recipe.task), field(default=recipe.task))
    usual = {"usual": recipe}
    made = make_dataclass("PretrainConfig", [task], bases=(PretrainConfig,), namespace=usual, frozen=True, kw_only=True)
    made.__doc__ = PretrainConfig.__doc__
    return made(**{f.name: getattr(recipe, f.name) for f in fields(PretrainConfig)})


def main(arguments: list[str]) -> None:
    """Runs `tilespin pretrain` with these command-line arguments."""
    load_plugins(arguments)  # before their tasks are asked for
    options = parse(options_type(), "pretrain", arguments)
    recipe = PretrainConfig(**{f.name: getattr(options.recipe, f.name) for f in fields(PretrainConfig)})
    if recipe.steps is not None and recipe.epochs == options.recipe.usual.epochs:
        recipe = replace(recipe, epochs=None)  # a length of the literature's, which --steps replaces
    runtime = options.runtime.checked()
    study = Study.open(runtime.storage, runtime.name or Path(recipe.data).resolve().name)
    training = prepare_training(recipe, study, runtime)
    with study.lock():
        study.describe()
        run_plan(StudyPlan(study, runtime, [training], []))
    described = read_json(training.folder / "encoder.json")
    if described["skipped"]:
        print(f"{len(described['skipped'])} files could not be decoded and were skipped")
    pretext = ", ".join(f"{name} {value:.3f}" for name, value in described["pretext"].items())
    print(f"{training.folder}: {described['steps']} steps, {described['images']:,} images, {pretext}")
    print_sync_command(study)
