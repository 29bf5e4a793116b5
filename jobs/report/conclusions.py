"""Says in sentences what numbers allow to conclude."""

from jobs.report.comparison import DatasetComparison, EncoderRow
from ssl_core.evaluation.protocol import is_accuracy


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
    """Returns what the numbers allow to say by the first protocol, in sentences."""
    lines = ["gain: over the same encoder at random initialization, under the same normalization"]
    protocol = part.protocols[0]
    tasks = [row for row in part.rows if row.kind == "task" and row.headline(protocol)]
    if not tasks:
        return lines
    best = tasks[-1]
    unit = " %" if protocol in best.gains else ""
    lines.append(f"Best task by {protocol}: {best.name}, {format_number(best, protocol)}{unit}.")
    both = [pair for pair in part.pairs.get(protocol, ()) if pair.better is best]
    equals = [pair.worse for pair in both if pair.verdict == "within noise"]
    if equals:
        lines.append(f"Within noise of it: {', '.join(row.name for row in equals)}.")
        cheapest = min((best, *equals), key=lambda row: row.cost("seconds") or 0)
        if (cheapest.cost("seconds") or 0) < 0.9 * (best.cost("seconds") or 0):
            lines.append(
                f"The cheapest of these is {cheapest.name}, {cheapest.cost('seconds'):.0f} s against "
                f"{best.cost('seconds'):.0f} s."
            )
    lines += [
        f"{row.name} is {row.verdict(protocol)} at this budget."
        for row in tasks
        if row.verdict(protocol) not in ("", "better than random")
    ]
    return lines
