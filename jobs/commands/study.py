"""Runs `tilespin study PRESET`: pretrains every task at equal budget, evaluates all by transfer, and compares."""

from dataclasses import asdict, dataclass, make_dataclass
from typing import Any, ClassVar

from jobs.config.options import VerbOptions
from jobs.config.parsing import parse, subcommand_choice
from jobs.config.presets import DESCRIPTIONS, PRESETS
from jobs.config.runtime import RuntimeConfig
from jobs.evaluation.encoders import from_training, with_baselines
from jobs.evaluation.jobs import check_evaluation
from jobs.evaluation.records import describe_evaluation
from jobs.execution.run import StudyPlan, run_plan
from jobs.pretraining.budget import equal_budget_recipes, longest_first
from jobs.pretraining.run import prepare_training
from jobs.report.publish import published_after
from jobs.study.folder import Study
from ssl_core.task import task_name


@dataclass(frozen=True, kw_only=True)
class Options(VerbOptions):
    """Pretrain every task of a preset at equal budget, evaluate all by transfer, and compare. The same command again
    computes only what is missing."""

    choice_key: ClassVar[str] = "preset"

    runtime: RuntimeConfig = RuntimeConfig(workers="1")


def options_type():
    """Returns a type like `Options` with a sub-command for every preset."""
    choice = subcommand_choice(PRESETS, DESCRIPTIONS)
    made = make_dataclass("Options", [("study", choice)], bases=(Options,), frozen=True, kw_only=True)
    made.__doc__ = Options.__doc__
    return made


def main(arguments: list[str]) -> None:
    """Runs `tilespin study` with these command-line arguments."""
    run(parse(options_type(), "study", arguments))


def run(options: Any) -> Study:
    """Runs a study and returns it.

    Args:
        options: An instance of `options_type()`.

    Raises:
        UserError: If something in the options cannot work.
        JobsFailed: If a job failed, after all that could run has run.
    """
    config, runtime = options.study, options.runtime.checked()
    study = Study.open(runtime.storage, runtime.name or config.preset)
    trainings = longest_first([prepare_training(recipe, study, runtime) for recipe in equal_budget_recipes(config)])
    encoders = with_baselines([from_training(one) for one in trainings])
    check_evaluation(encoders, config.evaluation)
    with study.lock():
        described = {**asdict(config), "tasks": [{"name": task_name(task), **asdict(task)} for task in config.tasks]}
        describe_evaluation(study, encoders, config.evaluation, config=described)
        with published_after(study, runtime.tracking):
            run_plan(StudyPlan(study, runtime, trainings, encoders, config.evaluation))
    return study
