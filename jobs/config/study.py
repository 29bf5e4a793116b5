"""Defines a study: which tasks, encoders, starts and budgets are compared, and on which datasets."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BeforeValidator

from jobs.config.config_file import check_names, fill, ungrouped
from jobs.config.evaluation import Transfers
from jobs.config.options import flat, one_word
from jobs.config.published import PUBLISHED
from ssl_core.errors import UserError, choose
from ssl_core.task import tasks

SUPERVISED = "supervised"  # the task that learns from labels: a reference for the others
MOST_PATCHES = 16_384  # of a dictionary, four times as many as the paper's most; more would not fit into memory
MOST_POINTS = 50  # of a training at which it is evaluated; W&B has room for as many rows
LENGTHS = ("budget", "epochs", "steps")  # options that say how long trainings are; one of them is given


@dataclass(frozen=True)
class TaskEntry:
    """Names a task of a study, or a recipe of the literature, and gives its options.

    Attributes:
        name: The task's or the recipe's name.
        options: Those that differ from its own, by the names that `tilespin pretrain` has for them.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def config(self) -> Any:
        """Returns the options of the task, of its own type.

        Raises:
            UserError: If there is no such task or recipe, or an option does not exist or is of another type.
        """
        known = {name: task.Config for name, task in tasks().items()}
        if self.name not in known and self.name not in PUBLISHED:
            raise UserError(f"--tasks {self.name}: {choose(self.name, [*known, *PUBLISHED])}")
        base = known[self.name]() if self.name in known else PUBLISHED[self.name].recipe.task
        where = f"--tasks {self.name}"
        values = ungrouped(self.options, type(base), where)
        names = {one.name for one in flat(type(base))}
        check_names(values, names, where, f"tilespin pretrain {self.name} --help lists those there are")
        return fill(type(base), base, values, where)

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(self.options)})" if self.options else self.name

    def document(self) -> Any:
        """Returns it as a study's file has it: its name, or a table with name and options."""
        return {"name": self.name, **self.options} if self.options else self.name

    @classmethod
    def parse(cls, value: Any) -> "TaskEntry":
        """Makes one of a name, or of a table with `name` and options. Raises ValueError for anything else."""
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            raise ValueError('expected a name, or a table such as {name = "pirl", transform = "jigsaw"}')
        entry = cls(value["name"], {name: of for name, of in value.items() if name != "name"})
        entry.config()
        return entry


Tasks = tuple[Annotated[TaskEntry, BeforeValidator(TaskEntry.parse), one_word(TaskEntry, "TASK")], ...]


@dataclass(frozen=True, kw_only=True)
class PretrainData:
    """Says which images are trained on."""

    data: str = "cifar10"
    """images to pretrain on, whose labels, if any, only the supervised reference looks at: cifar10, fashion-mnist,
    a folder of images, with a sub-folder for each class or without, a folder of tar files, of Parquet shards or from
    tilespin pack, or a URL; see tilespin pretrain"""
    size: int | None = None
    """side in pixels that images are resized to; default: the dataset's own, 96 for a folder"""


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """Trains every combination of tasks, encoders, starts, budgets and seeds, and evaluates all on every dataset."""

    tasks: Tasks = ()
    """pretext tasks, or recipes of the literature, see tilespin pretrain; a file may give options of each"""
    encoders: tuple[str, ...] = ("convnet",)
    """encoders that every task trains, and that are compared at random initialization; see tilespin pretrain"""
    init: tuple[str, ...] = ("random",)
    """where encoders start, each of which is compared: random, or pretrained weights as --encoder of
    tilespin evaluate takes them, such as timm:resnet18, which train the encoder of that architecture"""
    budget: tuple[float, ...] = ()
    """GMACs (10^9 multiply-accumulates) of encoder forward and backward that each task may spend;
    several are compared; default: 2800"""
    epochs: tuple[float, ...] = ()
    """passes over the images instead of --budget: tasks then differ in what they cost"""
    steps: tuple[int, ...] = ()
    """optimizer steps instead of --budget"""
    seed: int = 0
    """seed of initialization, order and every random draw"""
    seeds: int = 1
    """trainings of each combination, with seeds from --seed on; with several, intervals include differences between
    them"""
    evaluate_at: tuple[float, ...] = ()
    """when encoders are also evaluated before their trainings end: fractions of a training, up to 1, or steps, above 1;
    by --evaluate-at-protocols"""
    tune: int = 0
    """learning rates that are tried for each task, encoder, start and length, in short trainings before the long ones:
    the task's own and others around it, two a decade; held-out images of the transfer datasets choose; 0: none"""
    tune_fraction: float = 0.25
    """share of the length of a training that each --tune gets, the same for all"""
    kmeans: int = 0
    """patches of a dictionary that k-means learns from the images that are pretrained on: a floor without a network, as
    Coates, Lee and Ng had it in 2011; 400 or 1600 are usual, learned in less than a minute, but each image is compared
    with all of them, 400 or 150 images a second on a core; 0: none"""
    supervised: bool = True
    """also train on labels, at the same budget, as a reference: those of the images that are pretrained on, or,
    if these have none, those of each transfer dataset"""
    transfer: Transfers = ()
    """labeled datasets that every encoder is evaluated on, as DATA or DATA@SIZE with the side in pixels;
    default: the images that are pretrained on"""
    pretrain: PretrainData = PretrainData()

    def lengths(self) -> tuple[str, tuple[float, ...]]:
        """Returns what decides how long trainings are, "budget", "epochs" or "steps", and its values."""
        given = [name for name in LENGTHS if getattr(self, name)]
        return (given[0], getattr(self, given[0])) if given else ("budget", (2800.0,))

    def check(self) -> None:
        """Raises UserError if there is nothing to train, something is there twice, or a number is out of range."""
        if not self.tasks and not self.supervised:
            raise UserError("--tasks: expected at least one, such as rotnet")
        if len(given := [f"--{name}" for name in LENGTHS if getattr(self, name)]) > 1:
            raise UserError(f"{' and '.join(given)} are both given: choose one")
        name, values = self.lengths()
        for value in values:
            if not (math.isfinite(value) and value > 0):
                raise UserError(f"--{name} is {value}, expected {'GMACs ' if name == 'budget' else ''}above 0")
        for point in self.evaluate_at:
            if not (math.isfinite(point) and point > 0) or (point > 1 and point != int(point)):
                raise UserError(f"--evaluate-at {point:g}: expected a fraction of a training, up to 1, or a step")
        if len(set(self.evaluate_at)) < len(self.evaluate_at) or len(self.evaluate_at) > MOST_POINTS:
            raise UserError(f"--evaluate-at: expected at most {MOST_POINTS} points, each once")
        if self.seeds < 1:
            raise UserError(f"--seeds is {self.seeds}, expected at least 1")
        if self.kmeans and not 2 <= self.kmeans <= MOST_PATCHES:
            raise UserError(f"--kmeans is {self.kmeans}, expected 0, or 2 to {MOST_PATCHES:,} patches")
        if self.tune < 0 or self.tune == 1:
            raise UserError(f"--tune is {self.tune}, expected 0, or 2 or more learning rates to choose from")
        if not 0 < self.tune_fraction <= 1:
            raise UserError(f"--tune-fraction is {self.tune_fraction}, expected a share above 0 and at most 1")
        for option in ("encoders", "init", name, "tasks", "transfer"):
            found = [repr(one) for one in getattr(self, option)]
            if len(set(found)) < len(found) or (not found and option in ("encoders", "init")):
                shown = " ".join(str(one) for one in getattr(self, option))
                raise UserError(f"--{option} {shown}: expected at least one, each once")
