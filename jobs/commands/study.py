"""`tilespin study PRESET`: pretrains every task at equal budget, judges all by transfer, and compares."""

import math
from dataclasses import asdict, dataclass, make_dataclass, replace

from jobs.commands.compare import shown
from jobs.config.parsing import one_of, parse
from jobs.config.presets import PRESETS, StudyConfig
from jobs.config.recipe import Recipe
from jobs.config.runtime import Where
from jobs.evaluation.encoders import of_training, with_floors
from jobs.evaluation.jobs import check
from jobs.execution.run import Plan, do
from jobs.pretraining.worker import Training, build, prepare
from jobs.study.folder import Study
from ssl_core.data.dataset import open_source
from ssl_core.errors import BadInput
from ssl_core.task import name_of
from ssl_core.train import encoder_macs


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


def recipes(config: StudyConfig) -> list[Recipe]:
    """One for each task and seed, as long as its budget lasts: equal encoder forward and backward MACs for all."""
    found = []
    if not (math.isfinite(config.budget) and config.budget > 0):
        raise BadInput(f"--budget is {config.budget}, expected GMACs above 0")
    if config.seeds < 1:
        raise BadInput(f"--seeds is {config.seeds}, expected at least 1")
    source = open_source(config.data, config.size)
    for task in config.tasks:
        recipe = Recipe(task=task, data=config.data, size=config.size, encoder=config.encoder, seed=config.seed)
        model, _ = build(recipe, source)
        steps = round(config.budget * 1e9 / (encoder_macs(model, source.size) * task.batch))
        if steps < 1:
            raise BadInput(f"--budget {config.budget:g} GMACs is less than one step of {name_of(task)}")
        found += [replace(recipe, steps=steps, seed=config.seed + i) for i in range(config.seeds)]
    return found


def by_length(trainings: list[Training]) -> list[Training]:
    """Longest first, so that the last to finish starts first: views cost overhead that MACs do not show."""
    return sorted(trainings, key=lambda t: -t.recipe.steps)


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
