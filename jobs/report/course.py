"""Follows recipes along their trainings and over trainings of several lengths: who still rises, who overtakes whom."""

from collections import defaultdict
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from jobs.report.comparison import DatasetComparison, EncoderRow, protocols_of
from jobs.report.conclusions import format_interval
from jobs.report.paired import difference
from ssl_core.evaluation.protocol import is_accuracy
from ssl_core.evaluation.statistics import Interval, holm
from ssl_core.evaluation.trends import crossing, gain_per_doubling

SURE = 0.05  # p values below it are beyond noise
RECENT = 2  # a trend is that of the last doubling: of encoders with at least half of the last one's cost
ALIKE = 1.1  # costs of two recipes that are compared at one budget differ by less than this factor


@dataclass(frozen=True)
class Course:
    """Holds the encoders of one recipe, the cheapest first: of one training, or of trainings of several lengths."""

    name: str
    rows: tuple[EncoderRow, ...]

    @property
    def last(self) -> EncoderRow:
        """Returns the one that cost most."""
        return self.rows[-1]

    def costs(self) -> np.ndarray:
        """Returns multiply-accumulates of the encoder, forward and backward, [encoders]."""
        return np.array([row.cost("macs") for row in self.rows])

    def correct(self, protocol: str) -> np.ndarray | None:
        """Returns which test images the encoders are right on, [encoders, seeds, n] bool; None if that is not known."""
        found = [of for row in self.rows if protocol in row.records and (of := row.correct(protocol)) is not None]
        return np.stack(found) if len(found) == len(self.rows) and len({of.shape for of in found}) == 1 else None

    def trend(self, protocol: str) -> Interval | None:
        """Returns the gain for each doubling of the cost over the recent encoders, see `gain_per_doubling`."""
        correct, costs = self.correct(protocol), self.costs()
        if correct is None or len(costs) < 2:
            return None
        recent = (costs * RECENT >= costs[-1]) | (np.arange(len(costs)) >= len(costs) - 2)
        return gain_per_doubling(costs[recent], correct[recent])

    def peak(self, protocol: str) -> tuple[EncoderRow, Interval] | None:
        """Returns an encoder that is better than the last one beyond noise, and by how much; None if there is none.

        Of several the best is returned. P values are corrected for their number (Holm 1979).
        """
        found = [
            (row, difference(row.records.get(protocol, ()), self.last.records.get(protocol, ()))) for row in self.rows
        ]
        known = [(row, more) for row, more in found[:-1] if more is not None]
        adjusted = holm([more.p for _, more in known])
        better = [one for one, p in zip(known, adjusted) if one[1].mean > 0 and p < SURE]
        return max(better, key=lambda one: one[1].mean, default=None)


def along_training(rows: list[EncoderRow]) -> list[Course]:
    """Returns the course of each recipe whose encoders were kept before their last step."""
    return [Course(row.name, (*row.earlier, row)) for row in rows if row.earlier]


def over_lengths(rows: list[EncoderRow]) -> list[Course]:
    """Returns the course of each recipe that was trained for several lengths."""
    groups: dict[str, list[EncoderRow]] = defaultdict(list)
    for row in rows:
        if row.recipe and row.cost("macs"):
            groups[row.recipe].append(row)
    courses = [Course(name, tuple(sorted(of, key=lambda row: row.cost("macs") or 0))) for name, of in groups.items()]
    return [one for one in courses if len(one.rows) > 1 and len(set(one.costs())) == len(one.rows)]


def shared_protocols(courses: list[Course]) -> tuple[str, ...]:
    """Returns the protocols that an encoder besides the last was evaluated by, in their order."""
    return protocols_of([row for course in courses for row in course.rows[:-1]])


def course_conclusions(part: DatasetComparison) -> list[str]:
    """Says, by the first protocol that measures accuracy, who still rose, who peaked, and who overtakes whom."""
    lines = []
    for courses, unit in ((along_training(part.rows), "training"), (over_lengths(part.rows), "lengths")):
        protocol = next((name for name in shared_protocols(courses) if is_accuracy(name)), None)
        if protocol:
            lines += _trends(courses, protocol, unit)
            lines += _crossings(courses, protocol) if unit == "lengths" else []
    return lines


def _trends(courses: list[Course], protocol: str, unit: str) -> list[str]:
    peaked, rising, level = [], [], []
    for course in courses:
        trend, peak = course.trend(protocol), course.peak(protocol)
        if trend is None:
            continue
        if peak:
            row, more = peak
            share = (row.cost("macs") or 0) / (course.last.cost("macs") or 1)
            where = f"at {share:.0%} of its length" if unit == "training" else f"at {_tera(row.cost('macs'))}"
            peaked.append(f"{course.name} {where}, {format_interval(more)} above its end")
        elif trend.low > 0:
            rising.append(f"{course.name} by {format_interval(trend)}")
        else:
            level.append(course.name)
    over = "when training ended" if unit == "training" else "at the largest length"
    lines = []
    if rising:
        expected = f"of twice the {'length' if unit == 'training' else 'largest'} about as much more is to be expected"
        lines.append(
            f"By {protocol}, still rising {over}, for each doubling of the cost: {'; '.join(rising)}; {expected}."
        )
    if level:
        lines.append(f"By {protocol}, no longer rising beyond noise {over}: {', '.join(level)}.")
    if peaked:
        lines.append(f"By {protocol}, better before the end: {'; '.join(peaked)}.")
    return lines


def _crossings(courses: list[Course], protocol: str) -> list[str]:
    """Says who overtakes whom at which cost, where the whole interval lies between the costs that were tried."""
    lines = []
    for one, other in permutations(courses, 2):
        mine, theirs = one.correct(protocol), other.correct(protocol)
        if mine is None or theirs is None or mine.shape != theirs.shape:
            continue
        ratio = one.costs() / other.costs()
        if max(*ratio, *(1 / ratio)) > ALIKE:
            continue
        costs = np.sqrt(one.costs() * other.costs())
        found = crossing(costs, mine, theirs)
        if found and found.low >= costs[0] and found.high <= costs[-1]:
            where = f"at about {_tera(found.cost)}, 95 % between {found.low / 1e12:.2g} and {_tera(found.high)}"
            lines.append(f"By {protocol}, {one.name} overtakes {other.name} {where}.")
    return lines


def _tera(macs: float | None) -> str:
    return f"{(macs or 0) / 1e12:.2g} TMACs"
