"""`tilespin evaluate STUDY`: judges every encoder of a study by transfer, and computes only what is missing."""

from dataclasses import asdict, dataclass, replace
from typing import Annotated

import tyro

from jobs.cells import Evaluation, check, of_run, with_floors
from jobs.compare import show
from jobs.layout import Study
from jobs.options import parse
from jobs.where import Where
from jobs.work import Plan, do
from ssl_core.errors import BadInput
from ssl_core.files import read_json


@dataclass(frozen=True, kw_only=True)
class Options:
    """Judge every encoder of a study by transfer, between its floors; compute only what is missing. Options that
    are not given are as they were when the study was last evaluated."""

    study: Annotated[str, tyro.conf.Positional]
    """the study's folder, such as runs/demo"""
    evaluation: Evaluation = Evaluation()
    where: Where = Where()


def main(arguments: list[str]) -> None:
    options = parse(Options, "evaluate", arguments)
    study = Study.existing(options.study)
    if told := Evaluation.told(study):
        options = parse(Options, "evaluate", arguments, replace(options, evaluation=told))
    where = options.where.checked()
    judged = with_floors([of_run(read_json(run / "encoder.json")) for run in study.runs()])
    if not judged:
        raise BadInput(f"{options.study}: no finished pretraining here to evaluate")
    check(judged, options.evaluation)
    with study.held():
        study.describe(evaluation=asdict(options.evaluation))
        do(Plan(study, where, [], judged, options.evaluation))
        show(study, where.tracking)
