"""Runs `tilespin pretrain TASK`: trains an encoder on one pretext task, from wherever the last attempt stopped."""

from collections.abc import Set
from dataclasses import dataclass, field, fields, make_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from jobs.config.options import VerbOptions
from jobs.config.parsing import parse, subcommand_choice, with_own_type
from jobs.config.plugins import PluginOptions, load_plugins
from jobs.config.published import PUBLISHED
from jobs.config.recipe import PretrainConfig
from jobs.config.runtime import RuntimeConfig
from jobs.execution.plan import StudyPlan
from jobs.execution.run import run_plan
from jobs.pretraining.run import Training, prepare_training
from jobs.pretraining.step_profile import MOST_STEPS, SUMMARY
from jobs.study.folder import Study
from jobs.tracking.tracker import print_sync_command
from ssl_core.errors import UserError
from ssl_core.storage.files import exists, read_text
from ssl_core.storage.records import EncoderRecord
from ssl_core.task import tasks


@dataclass(frozen=True, kw_only=True)
class Options(VerbOptions):
    """Train an encoder on one pretext task, or by the recipe of a paper. The same command again continues a run that
    was stopped."""

    choice_key: ClassVar[str] = "task"

    recipe: PretrainConfig
    runtime: RuntimeConfig = RuntimeConfig()
    plugins: PluginOptions = PluginOptions()
    profile: int = 0
    """profile so many steps, such as 5, after the first ten: a table of where the time went, and a trace for
    https://ui.perfetto.dev in the run's folder; 0: none"""

    def resolved(self, given: Set[str]) -> Self:
        """Leaves out a recipe's own epochs if steps are given. Raises UserError if steps and epochs are given."""
        recipe = self.recipe
        if "steps" not in given or recipe.steps is None:
            return self
        if "epochs" in given and recipe.epochs is not None:
            raise UserError("--steps and --epochs are both given: choose one")
        return replace(self, recipe=replace(recipe, epochs=None))


def options_type() -> Any:
    """Returns a type like `Options` with a sub-command for every task, and for every pretraining of the literature."""
    recipes = {name: PretrainConfig(task=task.Config()) for name, task in tasks().items()}
    recipes |= {name: published.recipe for name, published in PUBLISHED.items()}
    described = {name: task.Config.__doc__ or "" for name, task in tasks().items()}
    described |= {name: published.description for name, published in PUBLISHED.items()}
    # the type of a recipe's task has to be known, so that the command line has its options
    typed = {
        name: with_own_type(recipe, ("task", type(recipe.task), field(default=recipe.task)))
        for name, recipe in recipes.items()
    }
    choice = subcommand_choice(typed, described)
    made = make_dataclass("Options", [("recipe", choice)], bases=(Options,), frozen=True, kw_only=True)
    made.__doc__ = Options.__doc__
    return made


def main(arguments: list[str]) -> None:
    """Runs `tilespin pretrain` with these command-line arguments."""
    load_plugins(arguments)  # before their tasks are asked for
    training = run(parse(options_type(), "pretrain", arguments))
    trained = EncoderRecord.read(training.folder / "encoder.json").training
    assert trained is not None  # what a run leaves says how it was trained
    if trained.skipped:
        print(f"{len(trained.skipped)} files could not be decoded and were skipped")
    pretext = ", ".join(f"{name} {value:.3f}" for name, value in trained.pretext.items())
    print(f"{training.folder}: {trained.steps} steps, {trained.images:,} images, {pretext}")
    if training.profile:
        summary = training.folder / SUMMARY
        print(read_text(summary) if exists(summary) else "no profile was written\n", end="")
    print_sync_command(Study(training.study))


def run(options: Any) -> Training:
    """Pretrains an encoder, from wherever the last attempt stopped, and returns the run, which is finished.

    Args:
        options: An instance of `options_type()`.

    Raises:
        UserError: If something in the options cannot work.
        JobsFailed: If the training failed.
    """
    recipe = PretrainConfig(**{f.name: getattr(options.recipe, f.name) for f in fields(PretrainConfig)})
    runtime = options.runtime.checked()
    study = Study.open(runtime.storage, runtime.name or Path(recipe.data).resolve().name)
    if not 0 <= options.profile <= MOST_STEPS:
        raise UserError(f"--profile is {options.profile}, expected 0 to {MOST_STEPS} steps")
    training = replace(prepare_training(recipe, study, runtime), profile=options.profile)
    with study.lock():
        study.describe()
        run_plan(StudyPlan(study, runtime, [training], []))
    return training
