"""Says in sentences what numbers allow to conclude."""

import math

from jobs.report.comparison import DatasetComparison, EncoderRow, Pair
from ssl_core.evaluation.protocol import is_accuracy
from ssl_core.evaluation.statistics import Interval

MANY = 100  # times the test images or seeds: nobody will go so far
GAIN = "gain: over the same encoder at random initialization, under the same normalization"


def split_by_kind(protocols: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Splits protocols into those whose main number is an accuracy, and the others."""
    accuracies = tuple(name for name in protocols if is_accuracy(name))
    return accuracies, tuple(name for name in protocols if name not in accuracies)


def format_number(row: EncoderRow, protocol: str) -> str:
    """Returns a main number as text: an accuracy in percent, any other with three digits, with its interval if it
    has one."""
    found = row.headline(protocol)
    if found is None:
        return "-"
    value, low, high = found
    scale, form = (100, ".1f") if is_accuracy(protocol) else (1, ".3g")
    interval = "" if low is None or high is None else f" ±{scale * (high - low) / 2:{form}}"
    return f"{scale * value:{form}}{interval}"


def format_difference(mean: float, low: float, high: float) -> str:
    """Returns a difference of accuracies in percent with half the width of its interval, such as "+5.7 ±0.9"."""
    return f"{100 * mean:+.1f} ±{50 * (high - low):.1f}"


def conclusions(part: DatasetComparison) -> list[str]:
    """Answers what a study is made for, by the first protocol, in sentences: did pretraining help, which task to use,
    how that compares with training on labels, and what would make the answer surer."""
    protocol = part.protocols[0]
    tasks = [row for row in part.rows if row.kind == "task" and row.headline(protocol)]
    if not tasks:
        return []
    best = tasks[-1]
    lines = [_did_it_help(tasks, protocol), *_which_task(part, best, protocol)]
    lines += [_against_kmeans(row, best, protocol) for row in part.rows if row.kind == "floor" and row.one.run]
    lines += [_against_labels(row, best, protocol) for row in part.rows if row.kind == "ceiling"]
    lines += [_added_to_start(row, best, protocol) for row in part.rows if row.kind == "external"]
    return [line for line in lines if line]


def _did_it_help(tasks: list[EncoderRow], protocol: str) -> str:
    """Says which tasks are better than the same encoder at random initialization, where the protocol can tell."""
    found = [(row, row.gains[protocol]) for row in tasks if protocol in row.gains]
    if not found:
        return ""
    helped = [row.name for row, gain in found if gain.low > 0]
    best, gain = max(found, key=lambda one: one[1].mean)
    size = f"{format_interval(gain)} for {best.name}"
    others = [f"{row.name} is {row.verdict(protocol)}" for row, _ in found if row.name not in helped]
    rest = f"; {', '.join(others)}" if others else ""
    if not helped:
        shown = "Pretraining did not help at this budget, or not by more than noise"
        return f"{shown}: by {protocol}, the most over the same encoder at random initialization is {size}{rest}."
    over = f"by {protocol}, over the same encoder at random initialization"
    return f"Pretraining helps on these images: {over}, {size}{rest}."


def _which_task(part: DatasetComparison, best: EncoderRow, protocol: str) -> list[str]:
    """Names the best task and those that are as good within noise, and says what would tell them apart."""
    unit = " %" if is_accuracy(protocol) else ""
    line = f"Best task by {protocol}: {best.name}, {format_number(best, protocol)}{unit}"
    pairs = [pair for pair in part.pairs.get(protocol, ()) if pair.better is best]
    near = [pair for pair in pairs if pair.verdict == "within noise"]
    if not near:
        return [f"{line}{', better than each of the others' if pairs else ''}."]
    equals = [pair.worse for pair in near]
    lines = [f"{line}. Within noise of it: {', '.join(row.name for row in equals)}."]
    cheapest = min((best, *equals), key=lambda row: row.cost("seconds") or 0)
    if (cheapest.cost("seconds") or 0) < 0.9 * (best.cost("seconds") or 0):
        lines.append(
            f"The cheapest of these is {cheapest.name}, {cheapest.cost('seconds'):.0f} s against "
            f"{best.cost('seconds'):.0f} s."
        )
    return [*lines, *([needed] if (needed := _what_would_tell_apart(near[0], protocol)) else [])]


def _what_would_tell_apart(pair: Pair, protocol: str) -> str:
    """Says how many test images, or seeds, would make a difference sure if it stayed what it is.

    An interval's half-width falls with the square root of the number. With several seeds the number is for all of the
    uncertainty being theirs, which is the most that it can be.
    """
    mean, half = pair.difference.mean, (pair.difference.high - pair.difference.low) / 2
    correct = pair.better.correct(protocol)
    if correct is None or not mean > 0:
        return ""
    seeds, images = correct.shape
    factor = (half / mean) ** 2
    if factor <= 1:
        return ""  # sure by itself, but not among all pairs
    between = f"{pair.better.name} from {pair.worse.name}, by {100 * mean:.1f} points"
    if factor > MANY:
        return f"To tell {between} would take more than {MANY} times the test images or seeds: take either."
    if seeds > 1:
        return f"If that stays so, about {math.ceil(seeds * factor)} seeds would tell {between}."
    count = f"{_round_up(images * factor):,}"
    return f"If that stays so, about {count} test images would tell {between}; more seeds may, too."


def _against_kmeans(floor: EncoderRow, best: EncoderRow, protocol: str) -> str:
    """Compares the best task with a dictionary of patches, which a minute of k-means learned without a network."""
    return _against(floor, best, protocol, f"{floor.name}, patches that k-means learned without a network")


def _against_labels(reference: EncoderRow, best: EncoderRow, protocol: str) -> str:
    """Compares the best task with training on labels at the same budget, which is a reference and no upper bound."""
    return _against(reference, best, protocol, f"{reference.name}, trained on labels at the same budget")


def _against(other: EncoderRow, best: EncoderRow, protocol: str, what: str) -> str:
    found = best.over(other, protocol)
    if found is None:
        return ""
    verdict = "better" if found.low > 0 else "worse" if found.high < 0 else "neither better nor worse beyond noise"
    return f"Against {what}, {best.name} is {verdict}: {format_interval(found)}."


def _added_to_start(start: EncoderRow, best: EncoderRow, protocol: str) -> str:
    """Says what pretraining added to, or took from, the weights that the best task started from."""
    found = best.over(start, protocol) if start.name in best.name else None
    return f"Over its start, {best.name} has {format_interval(found)}." if found else ""


def format_interval(found: Interval) -> str:
    """Returns a difference of accuracies with its interval, such as "+5.7 points (+4.8 to +6.6)"."""
    return f"{_points(found.mean)} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"


def _points(share: float) -> str:
    """Returns a difference of accuracies in points, such as "+5.7 points"."""
    return f"{100 * share:+.1f} points"


def _round_up(number: float) -> int:
    """Returns a number rounded up to two digits."""
    unit = 10 ** max(0, math.floor(math.log10(number)) - 1)
    return math.ceil(number / unit) * unit
