"""Decides which rows can be compared, and how: what the table, results.csv and the report show."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations

import numpy as np

from jobs.evaluation.dataset_names import Images, unique_dataset_names
from jobs.evaluation.encoders import EvaluatedEncoder
from jobs.report.paired import difference, interval_of_draws, stack_correct
from jobs.study.folder import Study
from ssl_core.evaluation.metrics import main_measure
from ssl_core.evaluation.protocol import protocols
from ssl_core.evaluation.statistics import (
    Interval,
    holm,
    t_interval,
    two_way_bootstrap,
    widen_to_mean,
    wilson_interval,
)
from ssl_core.storage.records import EvaluationRecord, TrainingRecord

CEILING = "supervised"
NOISE = 0.05  # an adjusted p value from which a difference is within noise
ORDER = {"floor": 0, "task": 1, "ceiling": 2, "external": 3}


def readable(name: str) -> str:
    """Returns a name as text that can be written and printed, even that of a file whose name is not valid text."""
    return name.encode(errors="backslashreplace").decode()


@dataclass(frozen=True)
class EncoderRow:
    """Holds one recipe with all its training seeds, or an encoder from elsewhere: its records, cost and gains."""

    study: Study
    encoders: tuple[EvaluatedEncoder, ...]  # by seed
    name: str  # for people: the task, with what sets it apart where a study has several recipes of it, or the floor
    records: dict[str, tuple[EvaluationRecord, ...]]  # by protocol, for every seed, in the order of `encoders`
    trainings: tuple[TrainingRecord, ...]  # of runs, by seed
    gains: dict[str, Interval]  # by protocol: the difference from the floor, paired by seed and test image
    baselines: dict[str, tuple[EvaluationRecord, ...]] = field(default_factory=dict)  # its floor's records, by seed
    recipe: str = ""  # the name of what is trained, the same for trainings of several lengths
    earlier: tuple["EncoderRow", ...] = ()  # the same encoders before their last step, in the order of training

    @property
    def one(self) -> EvaluatedEncoder:
        """Returns the encoder of the first seed."""
        return self.encoders[0]

    @property
    def kind(self) -> str:
        """Returns "floor", "external", "ceiling" or "task"."""
        if self.one.is_floor:
            return "floor"
        if self.one.external:
            return "external"
        return "ceiling" if self.one.task == CEILING else "task"

    @property
    def dataset(self) -> str:
        """Returns the dataset's name, or its folder or URL."""
        return readable(self._first.dataset.name if self._first else self.one.data)

    @property
    def images(self) -> Images:
        """Returns what says which images it was evaluated on: their digest, or place, and their size in pixels."""
        return (self._first.dataset.digest if self._first else self.one.data), self.one.size

    @property
    def _first(self) -> EvaluationRecord | None:
        return next((record for records in self.records.values() for record in records), None)

    def cost(self, what: str) -> float | None:
        """Returns what one seed cost on average; None for a baseline, or a run of an earlier version that did not
        count it."""
        counted = [getattr(one, what) for one in self.trainings]
        return sum(counted) / len(counted) if counted else None

    def mean_value(self, protocol: str, metric: str) -> float | None:
        """Returns the mean of a metric over seeds, or None if it was not measured."""
        found = self.values_by_seed(protocol, metric)
        return sum(found) / len(found) if found else None

    def values_by_seed(self, protocol: str, metric: str) -> list[float]:
        """Returns a metric of each seed; a number that is not finite counts as not measured."""
        found = [record.numbers.get(metric) for record in self.records.get(protocol, ())]
        return [value for value in found if value is not None and math.isfinite(value)]

    def mean_values(self, protocol: str) -> dict[str, float]:
        """Returns all that a protocol measured, as means over seeds."""
        names = {name for record in self.records.get(protocol, ()) for name in record.numbers}
        return {name: value for name in sorted(names) if (value := self.mean_value(protocol, name)) is not None}

    def correct(self, protocol: str) -> np.ndarray | None:
        """Returns which test images a protocol is right on, [seeds, n_test] bool.

        It is None if the protocol is not right or wrong on an image, or if seeds were evaluated on different numbers
        of images because a file could not be read for a while.
        """
        return stack_correct(self.records.get(protocol, ()))

    def baseline_row(self) -> "EncoderRow | None":
        """Returns the row of the same encoders before their training; None if these were not evaluated."""
        if not self.baselines:
            return None
        before = tuple(one.random_init(one.normalization) for one in self.encoders)
        return replace(self, encoders=before, records=self.baselines, trainings=(), gains={}, baselines={}, earlier=())

    def baseline_correct(self, protocol: str) -> np.ndarray | None:
        """Returns what `correct` returns, of the same encoder at random initialization; None if that is not known."""
        records = self.baselines.get(protocol, ())
        return stack_correct(records) if records else None

    @cached_property
    def _headlines(self) -> dict[str, tuple[float, float | None, float | None]]:
        """Keeps the main number of each protocol: each takes a bootstrap, and every table and figure asks for it."""
        return {name: found for name in self.records if (found := self._headline(name))}

    def headline(self, protocol: str) -> tuple[float, float | None, float | None] | None:
        """Returns a protocol's main number with the ends of its interval, or None if the protocol was not run.

        An accuracy of one seed has Wilson's interval; one of several has a bootstrap of seeds and images
        (`two_way_bootstrap`), and so has a number with draws, such as a mean average precision, of any number of them
        (`bootstrap_of_draws`). Any other number has Student's interval over seeds, and (None, None) for one seed.
        """
        return self._headlines.get(protocol)

    def _headline(self, protocol: str) -> tuple[float, float | None, float | None] | None:
        name, correct = self.main_measure(protocol), self.correct(protocol)
        value = self.mean_value(protocol, name)
        if value is None:
            return None
        if correct is not None:
            ends = wilson_interval(correct[0]) if len(correct) == 1 else two_way_bootstrap(correct).ends
            return value, *widen_to_mean(value, *ends)
        if drawn := interval_of_draws(self.records[protocol]):
            return value, *widen_to_mean(value, *drawn.ends)
        found = self.values_by_seed(protocol, name)
        return (value, *widen_to_mean(value, *t_interval(np.array(found)))) if len(found) > 1 else (value, None, None)

    def main_measure(self, protocol: str) -> str:
        """Returns the name of a protocol's main number: its headline, or `map` where images have several labels."""
        numbers = {name: 0.0 for record in self.records.get(protocol, ()) for name in record.numbers}
        return main_measure(protocols()[protocol].headline, numbers)

    @cached_property
    def gap(self) -> Interval | None:
        """Returns linear minus kNN accuracy, paired: information that is there although related images do not lie
        close."""
        return difference(self.records.get("linear", ()), self.records.get("knn", ()))

    def over(self, other: "EncoderRow", protocol: str) -> Interval | None:
        """Returns how much better it is than another row by a protocol's main number, see `difference`."""
        if self.images != other.images:
            return None
        return difference(self.records.get(protocol, ()), other.records.get(protocol, ()))

    def verdict(self, protocol: str) -> str:
        """Returns what the gain over the baseline allows to say, or ""."""
        gain = self.gains.get(protocol)
        if gain is None:
            return ""
        return (
            "better than random" if gain.low > 0 else "worse than random" if gain.high < 0 else "within noise of random"
        )


def measure_of(rows: Sequence[EncoderRow], protocol: str) -> str:
    """Returns the name of a protocol's main number for the rows of one dataset, see `EncoderRow.main_measure`."""
    return next((row.main_measure(protocol) for row in rows if protocol in row.records), "")


def measure_name(measure: str) -> str:
    """Returns what people call the main number of a protocol that measures accuracy."""
    return {"map": "mAP", "miou": "mIoU"}.get(measure, "top-1")


@dataclass(frozen=True)
class Pair:
    """Compares two tasks under one protocol, the better one first; the difference is paired by seed and test image."""

    better: EncoderRow
    worse: EncoderRow
    difference: Interval
    adjusted: float  # its p value, for all pairs of the table (Holm)

    @property
    def verdict(self) -> str:
        """Returns "better" or "within noise", by the adjusted p value."""
        return "better" if self.adjusted < NOISE else "within noise"


def rank_rows(rows: list[EncoderRow], protocol: str) -> list[EncoderRow]:
    """Sorts rows: baselines, tasks from worst to best, the ceiling, encoders from elsewhere. In each, no number
    comes first."""
    sign = 1 if protocols()[protocol].higher_is_better else -1

    def sort_key(row: EncoderRow) -> tuple[int, bool, float]:
        shown = row.headline(protocol)
        return ORDER[row.kind], shown is not None, sign * shown[0] if shown else 0.0

    return sorted(rows, key=sort_key)


@dataclass(frozen=True)
class DatasetComparison:
    """Holds the rows of one dataset, which can be compared with each other, ranked by the first of `protocols`."""

    dataset: str  # its name, with the images' size where several have the same
    rows: list[EncoderRow]
    protocols: tuple[str, ...]
    pairs: dict[str, list[Pair]]  # of tasks, by protocol; none for one that measures no accuracy

    def main_measure(self, protocol: str) -> str:
        """Returns the name of a protocol's main number, see `EncoderRow.main_measure`."""
        return measure_of(self.rows, protocol)

    @property
    def accuracy_name(self) -> str:
        """Returns what people call the main numbers of protocols that measure accuracy: top-1, mAP where images have
        several labels, or mIoU where they have masks."""
        measures = set(map(self.main_measure, self.protocols))
        return measure_name(next((name for name in ("map", "miou") if name in measures), "top1"))

    @property
    def seeds(self) -> int:
        """Returns the largest number of seeds that a row has."""
        return max(len(row.encoders) for row in self.rows)


def by_dataset(rows: list[EncoderRow]) -> list[DatasetComparison]:
    """Groups rows that have been evaluated by dataset.

    Encoders that failed under every protocol stand beside the others, without numbers.
    """
    evaluated = {(row.one.data, row.one.size): row for row in rows if row.records}
    like = [row if row.records else evaluated.get((row.one.data, row.one.size), row) for row in rows]
    parts = []
    for images, name in unique_dataset_names({one.images: one.dataset for one in like}).items():
        mine = [row for row, other in zip(rows, like) if other.images == images]
        if names := protocols_of(mine):
            mine = rank_rows(mine, names[0])
            parts.append(DatasetComparison(name, mine, names, {p: found for p in names if (found := pairs(mine, p))}))
    return parts


def protocols_of(rows: list[EncoderRow]) -> tuple[str, ...]:
    """Returns the protocols that any of the rows was evaluated by, in their order."""
    return tuple(dict.fromkeys(name for row in rows for name in row.records))


def pairs(rows: list[EncoderRow], protocol: str) -> list[Pair]:
    """Compares every two tasks that were evaluated on the same test images with as many seeds.

    The list is empty for a protocol that measures no accuracy. P values are adjusted for the number of pairs.

    Source: Holm 1979.
    """
    tasks = [row for row in rows if row.kind == "task" and protocol in row.records]
    found = []
    for one, other in combinations(tasks, 2):
        more = one.over(other, protocol)
        if more is not None and more.mean < 0:
            one, other, more = other, one, other.over(one, protocol)
        if more is not None:
            found.append((one, other, more))
    adjusted = holm([more.p for _, _, more in found])
    return [Pair(better, worse, more, p) for (better, worse, more), p in zip(found, adjusted)]
