"""`tilespin study PRESET`: pretrains every task at equal budget, judges all by transfer, and compares."""

from dataclasses import asdict, dataclass, make_dataclass

from jobs.config.parsing import one_of, parse
from jobs.config.presets import PRESETS
from jobs.config.runtime import Where
from jobs.evaluation.encoders import of_training, with_floors
from jobs.evaluation.jobs import check
from jobs.execution.run import Plan, do
from jobs.pretraining.budget import by_length, recipes
from jobs.pretraining.run import prepare
from jobs.report.publish import shown
from jobs.study.folder import Study
from ssl_core.task import name_of


@dataclass(frozen=True, kw_only=True)
class Options:
    """Pretrain every task of a preset at equal budget, judge all by transfer, compare. Again: only what is missing."""

    where: Where = Where(workers="1")


def options_type():
    """Options with a sub-command for every preset."""
    choice = one_of(PRESETS)
    made = make_dataclass("Options", [("study", choice)], bases=(Options,), frozen=True, kw_only=True)
    made.__doc__ = Options.__doc__
    return made


def main(arguments: list[str]) -> None:
    options = parse(options_type(), "study", arguments)
    config, where = options.study, options.where.checked()
    study = Study.at(where.storage, where.name or config.preset)
    trainings = by_length([prepare(recipe, study, where) for recipe in recipes(config)])
    judged = with_floors([of_training(one) for one in trainings])
    check(judged, config.evaluation)
    with study.held():
        told = {**asdict(config), "tasks": [{"name": name_of(task), **asdict(task)} for task in config.tasks]}
        study.describe(config=told, evaluation=asdict(config.evaluation))
        with shown(study, where.tracking):
            do(Plan(study, where, trainings, judged, config.evaluation))
