"""Runs `tilespin evaluate STUDY`: evaluates every encoder of a study by transfer, and others that are added to it.

Only what is missing is computed.
"""

import sys
from collections.abc import Set
from dataclasses import dataclass, fields, replace
from typing import Annotated, Self

import tyro

from jobs.config.evaluation import Evaluation, Transfers, resolve_transfer
from jobs.config.options import VerbOptions
from jobs.config.parsing import parse
from jobs.config.plugins import PluginOptions
from jobs.config.runtime import RuntimeConfig
from jobs.evaluation.encoders import with_baselines
from jobs.evaluation.external import add_external, choose_datasets, describe_loading, list_encoders, load_external
from jobs.evaluation.jobs import check_evaluation
from jobs.evaluation.records import describe_evaluation
from jobs.execution.plan import StudyPlan
from jobs.execution.run import run_plan
from jobs.report.publish import published_after
from jobs.study.folder import Study
from ssl_core.errors import UserError
from ssl_core.storage.files import exists
from ssl_core.storage.records import EncoderRecord


@dataclass(frozen=True, kw_only=True)
class Options(VerbOptions):
    """Evaluate every encoder of a study by transfer, beside random encoders and raw pixels; compute only what is
    missing. Encoders given by --encoder are added to the study. Evaluation options that are not given are as they were
    when the study was last evaluated."""

    study: Annotated[str, tyro.conf.Positional]
    """the study's folder, such as runs/demo; with --encoder and --data it may be a new one"""
    encoder: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """encoder that was not trained here, to be evaluated now and later
    timm:NAME or torchvision:NAME: with the weights that timm or torchvision publishes
    timm:NAME=FILE: with those of a file (safetensors, or a state dict of torch.save)
    timm:NAME=FILE#NETWORK: if there are several networks in it, such as teacher and student
    timm:NAME=random: at random initialization
    FOLDER: the folder of another study's run"""
    data: str | None = None
    """dataset that encoders given now are evaluated on; default: that of the study's first encoder"""
    size: int | None = None
    """side in pixels that its images are resized to; default: the study's, or with --data the dataset's own"""
    transfer: Transfers = ()
    """datasets with labels or masks that the study's runs, and encoders given now, are evaluated on, DATA or DATA@SIZE;
    default: as when the study was last evaluated, else what each run was trained on"""
    evaluation: Evaluation = Evaluation()
    runtime: RuntimeConfig = RuntimeConfig()
    plugins: PluginOptions = PluginOptions()

    def resolved(self, given: Set[str]) -> Self:
        """Fills in how the study was last evaluated, where nothing else is given."""
        study, evaluation = Study(self.study), self.evaluation
        if saved := Evaluation.of_study(study) if exists(study.file) else None:
            asked = {field.name: getattr(evaluation, field.name) for field in fields(saved) if field.name in given}
            evaluation = replace(saved, **{name: value for name, value in asked.items() if name != "transfer"})
        if self.transfer:
            transfer = resolve_transfer(self.transfer, _trained_size(study), evaluation.protocols)
            evaluation = replace(evaluation, transfer=transfer)
        return replace(self, evaluation=evaluation)


def _trained_size(study: Study) -> int | None:
    """Returns the side in pixels of the images that the study's first run was trained on; None if it has none."""
    trained = (EncoderRecord.read(folder / "encoder.json").training for folder in study.runs())
    return next((one.size for one in trained if one), None)


def main(arguments: list[str]) -> None:
    """Runs `tilespin evaluate` with these command-line arguments."""
    options = parse(Options, "evaluate", arguments)
    study = Study(options.study)
    if not exists(study.file) and not (options.encoder and options.data):
        study = Study.existing(options.study)  # says that there is none
    if (options.data or options.size) and not options.encoder:
        raise UserError("--data and --size say what encoders given by --encoder are evaluated on: there is none")
    runtime = options.runtime.checked()
    externals = []
    if options.encoder:
        datasets = choose_datasets(study, options.evaluation, options.data, options.size)
        externals = [load_external(spec, data, size) for data, size in datasets for spec in options.encoder]
    known = list_encoders(study, options.evaluation) if exists(study.file) else []
    encoders = with_baselines(list(dict.fromkeys([*known, *(external.evaluated for external in externals)])))
    if not encoders:
        raise UserError(f"{options.study}: no finished pretraining here to evaluate")
    evaluation = options.evaluation.fitted((one.data, one.size) for one in encoders)
    check_evaluation(encoders, evaluation)
    with study.lock():
        for external in externals:
            print(describe_loading(external), file=sys.stderr)
        if externals:
            add_external(study, externals)
        describe_evaluation(study, encoders, evaluation)
        with published_after(study, runtime.tracking):
            run_plan(StudyPlan(study, runtime, [], encoders, evaluation))
