"""Defines what a sweep tries, and when it stops a trial."""

from dataclasses import dataclass, replace

from jobs.config.study import PretrainData, StudyConfig, TaskEntry
from jobs.pretraining.budget import plan_trainings
from ssl_core.errors import UserError, choose
from ssl_core.task import tasks

ROWS = 50  # of metrics.jsonl in each trial: where one can be stopped


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Tries every combination of these, each for the same budget."""

    tasks: tuple[str, ...] = ()
    """tasks to try; default: all"""
    encoders: tuple[str, ...] = ("convnet",)
    """encoders to try, as in tilespin pretrain"""
    lr_factors: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0)
    """learning rates, as multiples of each task's own"""
    lrs: tuple[float, ...] = ()
    """learning rates themselves, for every task, instead of --lr-factors"""
    seeds: tuple[int, ...] = (0,)
    """seeds that each combination is trained with"""
    data: str = "cifar10"
    """dataset, as in tilespin pretrain"""
    size: int | None = None
    """side in pixels that images are resized to; default: the dataset's own, 96 for a folder"""
    budget: float = 280.0
    """GMACs (10^9 multiply-accumulates) of encoder forward and backward for each trial"""

    def recipes(self):
        """Returns the recipe of each trial. Raises UserError if an option names what does not exist, or nothing."""
        known = tasks()
        for name in self.tasks:
            if name not in known:
                raise UserError(f"--tasks {name}: {choose(name, known)}")
        for option in ("encoders", "seeds", "lrs" if self.lrs else "lr_factors"):
            values = getattr(self, option)
            if not values or len(set(values)) < len(values):
                raise UserError(f"--{option} {' '.join(map(str, values))}: expected at least one, each once")
        config = StudyConfig(
            tasks=tuple(TaskEntry(name) for name in self.tasks or known),
            encoders=self.encoders,
            budget=(self.budget,),
            supervised=False,
            pretrain=PretrainData(data=self.data, size=self.size),
        )
        found = []
        for one in plan_trainings(config):
            optim = one.task.optim
            for lr in self.lrs or (float(f"{factor * optim.lr:.6g}") for factor in self.lr_factors):
                task = replace(one.task, optim=replace(optim, lr=lr))
                found += [replace(one, task=task, seed=seed) for seed in self.seeds]
        return found


@dataclass(frozen=True, kw_only=True)
class Stopping:
    """Stops trials by asynchronous successive halving on the pretext loss, among those of the same task and encoder."""

    asha_grace: float = 0.2
    """fraction of its steps that each trial gets before it can be stopped; 1: none is stopped"""
    asha_reduction: float = 3.0
    """at --asha-grace, and each time that it has come this many times as far,
    a trial goes on only if it is among the best 1 / --asha-reduction"""

    def check(self) -> None:
        """Raises UserError if a number is out of range."""
        if not 0 < self.asha_grace <= 1:
            raise UserError(f"--asha-grace is {self.asha_grace}, expected a fraction above 0 and at most 1")
        if not 1 < self.asha_reduction <= 100:
            raise UserError(f"--asha-reduction is {self.asha_reduction}, expected more than 1 and at most 100")
