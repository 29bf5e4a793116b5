"""Makes runs of equal budget for every task."""

import math
from dataclasses import replace

from jobs.config.presets import StudyConfig
from jobs.config.recipe import PretrainConfig
from jobs.pretraining.run import Training, build_model
from ssl_core.data.dataset import open_source
from ssl_core.errors import UserError
from ssl_core.task import task_name
from ssl_core.train import encoder_macs


def equal_budget_recipes(config: StudyConfig) -> list[PretrainConfig]:
    """Returns a run for each task and seed that lasts as long as its budget: equal encoder MACs, forward and
    backward.

    Args:
        config: The study's tasks, data, encoder, seeds and budget.

    Raises:
        UserError: If the budget or the number of seeds is out of range.
    """
    found = []
    if not (math.isfinite(config.budget) and config.budget > 0):
        raise UserError(f"--budget is {config.budget}, expected GMACs above 0")
    if config.seeds < 1:
        raise UserError(f"--seeds is {config.seeds}, expected at least 1")
    source = open_source(config.data, config.size)
    for task in config.tasks:
        recipe = PretrainConfig(task=task, data=config.data, size=config.size, encoder=config.encoder, seed=config.seed)
        model, _ = build_model(recipe, source)
        steps = round(config.budget * 1e9 / (encoder_macs(model, source.size) * task.batch))
        if steps < 1:
            raise UserError(f"--budget {config.budget:g} GMACs is less than one step of {task_name(task)}")
        found += [replace(recipe, steps=steps, seed=config.seed + i) for i in range(config.seeds)]
    return found


def longest_first(trainings: list[Training]) -> list[Training]:
    """Sorts runs, the longest first, so that the last to finish starts first: views cost overhead that MACs do not
    show."""
    return sorted(trainings, key=lambda t: -t.recipe.steps)
