"""Asks which number that needs no labels predicted transfer: for encoders of one task, and across tasks."""

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from jobs.report.comparison import DatasetComparison, EncoderRow
from ssl_core.evaluation.protocol import is_accuracy
from ssl_core.evaluation.rank_correlation import Correlation, kendall

# What `collapse` and `invariance` measure that needs no labels, by name in their records; a transform's name is added
OF_COLLAPSE = {
    "rankme": "RankMe",
    "lidar": "LiDAR",
    "std": "spread",
    "alpha": "alpha-ReQ",
    "dimension": "intrinsic dimension",
    "learnability": "cluster learnability",
    "dse": "DSE",
}
OF_INVARIANCE = {"probe/rotation": "rotation probe", "probe/jigsaw": "jigsaw probe"}
OF_PRETEXT = {"loss": "pretext loss", "accuracy": "pretext accuracy"}
ONLY_WITHIN = frozenset(OF_PRETEXT.values())  # those of different tasks are of different things
CLID = "CLID"
FEWEST = 8  # encoders that are compared, or there is nothing to say
FEWEST_RECIPES = 5  # across tasks


@dataclass(frozen=True)
class Predictor:
    """Says how well a label-free number orders encoders as transfer does.

    Attributes:
        measure: The number.
        protocol: The transfer protocol, of which the main number is taken.
        within: Among encoders of one task: its learning rates, lengths, seeds and steps; None if that is not known.
        across: Among encoders of all tasks, at the end of their trainings; None if that is not known.
    """

    measure: str
    protocol: str
    within: Correlation | None
    across: Correlation | None


@dataclass(frozen=True)
class _Item:
    """Is an encoder of one seed: what was measured of it without labels, and its transfer by protocol."""

    task: str
    recipe: str
    training: tuple[str, int]
    last: bool
    measured: dict[str, float]
    transfer: dict[str, float]


def predictors(part: DatasetComparison) -> list[Predictor]:
    """Returns how well each label-free number predicted each protocol's main number on one dataset.

    The intervals are 95 % bootstraps over trainings within a task, which keep the steps of one training together, and
    over recipes, with all their seeds, across tasks. The list is empty for fewer than FEWEST encoders of tasks.
    """
    items = [item for row in part.rows if row.kind == "task" for item in _items(row)]
    if len(items) < FEWEST:
        return []
    _add_clid(items)
    measures = list(dict.fromkeys(name for item in items for name in item.measured))
    names = [p for p in part.protocols if is_accuracy(p) and any(p in item.transfer for item in items)]
    found = []
    for protocol in names:
        for measure in measures:
            known = [one for one in items if protocol in one.transfer and measure in one.measured]
            last = [one for one in known if one.last and measure not in ONLY_WITHIN]
            within = _correlation(known, measure, protocol, True, len(measures))
            across = _correlation(last, measure, protocol, False, len(measures))
            if within or across:
                found.append(Predictor(measure, protocol, within, across))
    return found


def _items(row: EncoderRow) -> Iterator[_Item]:
    """Yields the encoders of a row, of each seed and step."""
    for one in (*row.earlier, row):
        transfers = {p: one.main_measure(p) for p in one.records if is_accuracy(p)}
        for i, encoder in enumerate(one.encoders):
            numbers = {p: records[i].numbers for p, records in one.records.items() if i < len(records)}
            collapse, invariance = numbers.get("collapse", {}), numbers.get("invariance", {})
            ratios = {name: name for name in invariance if "/" not in name}
            pretext = one.trainings[i].pretext if i < len(one.trainings) else {}
            named = ((pretext, OF_PRETEXT), (collapse, OF_COLLAPSE), (invariance, OF_INVARIANCE | ratios))
            measured = {of: values[name] for values, names in named for name, of in names.items() if name in values}
            if "alpha" in collapse:
                measured["alpha-ReQ, distance from 1"] = abs(collapse["alpha"] - 1)
            yield _Item(
                task=encoder.task,
                recipe=row.name,
                training=(row.name, encoder.seed),
                last=one is row,
                measured={name: value for name, value in measured.items() if math.isfinite(value)},
                transfer={p: numbers[p][name] for p, name in transfers.items() if name in numbers.get(p, {})},
            )


def _add_clid(items: list[_Item]) -> None:
    """Adds CLID to those that have its parts: their sum, each standardized over all encoders that are compared."""
    parts = ("intrinsic dimension", "cluster learnability")
    known = [item for item in items if all(name in item.measured for name in parts)]
    if len(known) > 1:
        values = np.array([[item.measured[name] for name in parts] for item in known])
        scores = (values - values.mean(0)) / np.maximum(values.std(0), 1e-12)
        for item, score in zip(known, scores.sum(1)):
            item.measured[CLID] = float(score)


def _correlation(items: list[_Item], measure: str, protocol: str, within: bool, tests: int) -> Correlation | None:
    groups = [item.training if within else item.recipe for item in items]
    tasks = [item.task for item in items]
    if len(items) < (FEWEST if within else FEWEST_RECIPES) or (not within and len(set(groups)) < FEWEST_RECIPES):
        return None
    x, y = np.array([(item.measured[measure], item.transfer[protocol]) for item in items]).T
    return kendall(x, y, _numbered(groups), _numbered(tasks) if within else None, tests)


def _numbered(values: list) -> np.ndarray:
    places = {value: i for i, value in enumerate(dict.fromkeys(values))}
    return np.array([places[value] for value in values])


def predictor_conclusions(found: list[Predictor]) -> list[str]:
    """Says what to watch without labels: the number that is surest to order encoders alike, by the protocol that the
    most encoders were evaluated by."""
    if not found:
        return []
    protocol = max(found, key=lambda one: max(tau.items for tau in (one.within, one.across) if tau)).protocol
    mine = [one for one in found if one.protocol == protocol]
    lines = [
        _what_to_watch(mine, protocol, "Among encoders of one task", "within"),
        _what_to_watch(mine, protocol, "Across tasks", "across"),
    ]
    return [line for line in lines if line]


def _what_to_watch(found: list[Predictor], protocol: str, where: str, kind: str) -> str:
    known = [(one.measure, tau) for one in found if (tau := getattr(one, kind))]
    if not known:
        return ""
    measure, plain = max(known, key=lambda one: max(one[1].sure[0], -one[1].sure[1]))
    if max(plain.sure[0], -plain.sure[1]) <= 0:
        return f"{where}, no number without labels predicted {protocol} beyond noise, of {len(known)} that were tried."
    sign = "higher" if plain.tau > 0 else "lower"
    return (
        f"{where}, without labels watch {measure}: {sign} is better by {protocol}, Kendall's tau {plain.tau:+.2f} "
        f"({plain.low:+.2f} to {plain.high:+.2f})."
    )


def predictors_csv(found: dict[str, list[Predictor]]) -> str:
    """Returns label-free.csv: a row for each dataset, protocol and number, with tau and its 95 % interval.

    Args:
        found: Predictors by the dataset's name.
    """
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["dataset", "protocol", "measure", "pairs", "tau", "low", "high", "encoders"])
    for dataset, one in ((dataset, one) for dataset, of in found.items() for one in of):
        for pairs, tau in (("within a task", one.within), ("across tasks", one.across)):
            if tau:
                table.writerow([dataset, one.protocol, one.measure, pairs, tau.tau, tau.low, tau.high, tau.items])
    return out.getvalue()
