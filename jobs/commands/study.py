"""Runs `tilespin study STUDY`: pretrains every task at equal budget, evaluates all by transfer, and compares."""

from collections.abc import Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, Self

import tyro

from jobs.config.config_file import to_toml
from jobs.config.evaluation import Evaluation, TransferEntry, resolve_transfer
from jobs.config.options import VerbOptions, document_of
from jobs.config.parsing import parse
from jobs.config.plugins import PluginOptions
from jobs.config.presets import describe_presets
from jobs.config.recipe import PretrainConfig, resolve_data_path
from jobs.config.runtime import RuntimeConfig
from jobs.config.study import LENGTHS, StudyConfig
from jobs.evaluation.encoders import before_the_end, from_dictionary, from_training, on_datasets, with_baselines
from jobs.evaluation.external import ExternalEncoder, add_external, load_external
from jobs.evaluation.jobs import check_evaluation
from jobs.evaluation.records import describe_evaluation
from jobs.execution.plan import StudyPlan
from jobs.execution.run import run_plan, show_plan
from jobs.pretraining.budget import longest_first, plan_trainings
from jobs.pretraining.dictionary import DictionaryRun, plan_dictionaries
from jobs.pretraining.run import prepare_training
from jobs.report.publish import published_after
from jobs.study.folder import Study
from jobs.sweep.tuning import describe_tuning, tune
from ssl_core.data.dataset import open_source
from ssl_core.encoders.pretrained import RANDOM
from ssl_core.errors import UserError
from ssl_core.storage.files import write_text

STUDY_HELP = f"file of a study, .toml or .json, or the name of one that is built in. {describe_presets()}"


@dataclass(frozen=True, kw_only=True)
class Options(VerbOptions):
    """Pretrain every task at equal budget, evaluate all encoders by transfer, and compare. The same command again
    computes only what is missing. Each option is a key of the study's file; given here, it counts more."""

    document_key: ClassVar[str] = "study"
    alternatives: ClassVar[frozenset[str]] = frozenset(LENGTHS)

    document: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[STUDY]", help=STUDY_HELP)] = ""
    dry_run: bool = False
    """say what there is to do, and do nothing"""
    study: StudyConfig = StudyConfig()
    evaluation: Evaluation = Evaluation()
    runtime: RuntimeConfig = RuntimeConfig(workers="1")
    plugins: PluginOptions = PluginOptions()

    def resolved(self, given: Set[str]) -> Self:
        """Raises UserError if the study's file is named anywhere but at first, where it is not read."""
        if self.document:
            raise UserError(f"study: {self.document} has to come first: tilespin study {self.document} …")
        return self


def main(arguments: list[str]) -> None:
    """Runs `tilespin study` with these command-line arguments."""
    run(parse(Options, "study", arguments))


def run(options: Options) -> Study:
    """Runs a study and returns it.

    Args:
        options: The study, and where it runs.

    Raises:
        UserError: If something in the options cannot work.
        JobsFailed: If a job failed, after all that could run has run.
    """
    config, runtime = _resolved(options.study, options.evaluation.protocols), options.runtime.checked()
    study = Study.open(runtime.storage, runtime.name or Path(config.pretrain.data).resolve().name)
    evaluation = replace(options.evaluation, transfer=config.transfer)
    evaluation = evaluation.fitted([(config.pretrain.data, config.pretrain.size)])
    recipes, dictionaries = plan_trainings(config), plan_dictionaries(config, study, runtime)
    starts = [
        load_external(init, entry.data, entry.size)
        for init in config.init
        if init != RANDOM
        for entry in evaluation.transfer or (TransferEntry(config.pretrain.data, config.pretrain.size),)
    ]
    plan = _plan(study, config, runtime, recipes, dictionaries, starts, evaluation)
    if options.dry_run:
        show_plan(plan, describe_tuning(config, recipes))
        return study
    with study.lock():
        if starts:
            add_external(study, starts)
        named = replace(options, study=config, runtime=replace(options.runtime, name=study.root.name))
        write_text(study.root / "study.toml", to_toml(named))
        describe_evaluation(study, plan.encoders, evaluation, config=document_of(config), tuning=())
        if config.tune:
            recipes, tuning = tune(config, recipes, study, runtime, evaluation)
            plan = _plan(study, config, runtime, recipes, dictionaries, starts, evaluation)
            describe_evaluation(study, plan.encoders, evaluation, tuning=tuning)
        with published_after(study, runtime.tracking):
            run_plan(plan)
    return study


def _plan(
    study: Study,
    config: StudyConfig,
    runtime: RuntimeConfig,
    recipes: list[PretrainConfig],
    dictionaries: list[DictionaryRun],
    starts: list[ExternalEncoder],
    evaluation: Evaluation,
) -> StudyPlan:
    """Returns the trainings of these recipes and the evaluations of their encoders, dictionaries, starts and baselines.

    Encoders that are kept before a training ends are evaluated too.

    Raises:
        UserError: If something in them cannot work.
    """
    points = config.evaluate_at
    trainings = longest_first([prepare_training(recipe, study, runtime, points) for recipe in recipes])
    learned = [*map(from_dictionary, dictionaries), *map(from_training, trainings)]
    learned += [kept for one in trainings for kept in before_the_end(one)]
    trained = on_datasets(learned, evaluation.transfer)
    encoders = with_baselines([*(start.evaluated for start in starts), *trained])
    check_evaluation(encoders, evaluation)
    return StudyPlan(study, runtime, trainings, encoders, evaluation, dictionaries)


def _resolved(config: StudyConfig, protocols: tuple[str, ...]) -> StudyConfig:
    """Fills in absolute paths, and the transfer datasets' sizes, and their protocols where these are not the study's.

    By default they have the size of the images that are pretrained on, so that encoders meet what they have learned at
    the same scale.
    """
    size = open_source(config.pretrain.data, config.pretrain.size).size
    pretrain = replace(config.pretrain, data=resolve_data_path(config.pretrain.data))
    return replace(config, transfer=resolve_transfer(config.transfer, size, protocols), pretrain=pretrain)
