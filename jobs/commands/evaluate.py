"""`tilespin evaluate STUDY`: judges every encoder of a study by transfer, others beside them, and computes only what is
missing."""

import sys
from dataclasses import asdict, dataclass, replace
from typing import Annotated

import tyro

from jobs.config.evaluation import Evaluation
from jobs.config.parsing import parse
from jobs.config.runtime import Where
from jobs.evaluation.encoders import with_floors
from jobs.evaluation.external import add, arrive, everything, place_of, said
from jobs.evaluation.jobs import check
from jobs.execution.run import Plan, do
from jobs.report.publish import shown
from jobs.study.folder import Study
from ssl_core.errors import BadInput
from ssl_core.storage.files import exists


@dataclass(frozen=True, kw_only=True)
class Options:
    """Judge every encoder of a study by transfer, between its floors, and others that are brought into it; compute only
    what is missing. Options that are not given are as they were when the study was last evaluated."""

    study: Annotated[str, tyro.conf.Positional]
    """the study's folder, such as runs/demo; with --encoder and --data it may be a new one"""
    encoder: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """one that was not trained here, to be judged as well, now and later; may be given several times: timm:NAME or
    torchvision:NAME with the weights that these publish, timm:NAME=FILE with those of a file (safetensors, or a state
    dict of torch.save), timm:NAME=FILE#NETWORK if there are several networks in it, such as teacher and student,
    timm:NAME=random, or the folder of another study's run"""
    data: str | None = None
    """what encoders given now are judged on; default: what the study's first one is"""
    size: int | None = None
    """side in pixels that their images are delivered at; default: the study's, or with --data the dataset's own"""
    evaluation: Evaluation = Evaluation()
    where: Where = Where()


def main(arguments: list[str]) -> None:
    options = parse(Options, "evaluate", arguments)
    study = Study(options.study)
    if not exists(study.file) and not (options.encoder and options.data):
        study = Study.existing(options.study)  # says that there is none
    if exists(study.file) and (told := Evaluation.told(study)):
        options = parse(Options, "evaluate", arguments, replace(options, encoder=(), evaluation=told))
    if (options.data or options.size) and not options.encoder:
        raise BadInput("--data and --size say what encoders given by --encoder are judged on: there is none")
    where = options.where.checked()
    place = place_of(study, options.data, options.size) if options.encoder else None
    arrivals = [arrive(told, *place) for told in options.encoder]
    known = everything(study) if exists(study.file) else []
    judged = with_floors(list(dict.fromkeys([*known, *(arrival.judged for arrival in arrivals)])))
    if not judged:
        raise BadInput(f"{options.study}: no finished pretraining here to evaluate")
    check(judged, options.evaluation)
    with study.held():
        for arrival in arrivals:
            print(said(arrival), file=sys.stderr)
        if arrivals:
            add(study, arrivals)
        study.describe(evaluation=asdict(options.evaluation))
        with shown(study, where.tracking):
            do(Plan(study, where, [], judged, options.evaluation))
