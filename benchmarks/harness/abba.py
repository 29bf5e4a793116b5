"""Two ways side by side in the order A B B A, in which a steady drift of the machine cancels, and what pairs say."""

import statistics
from collections.abc import Sequence
from math import comb

LEVEL = 0.95


def order(pairs: int) -> str:
    """Whose turn it is: "ABBA" as often as there are pairs."""
    return "ABBA" * pairs


def ratios(taken: Sequence[float]) -> list[float]:
    """For each pair, how many times as long B took as A. `taken`: the times of blocks in ABBA's order."""
    if len(taken) % 4:
        raise ValueError(f"{len(taken)} blocks, expected whole ABBA pairs of 4")
    quads = [taken[i : i + 4] for i in range(0, len(taken), 4)]
    return [(first + second) / (before + after) for before, first, second, after in quads]


def interval(values: Sequence[float], level: float = LEVEL) -> dict[str, float]:
    """Of the median: {"median", "low", "high", "level"}, by the exact sign test, which assumes no distribution.

    The ends are order statistics, the narrowest that hold the median with at least `level`; {"level"} says how surely
    they do. Raises ValueError if there are too few values: at 0.95 fewer than 6.
    """
    values, count = sorted(values), len(values)
    kept = 0  # values that lie outside at each end, and one
    while kept < count // 2 and 1 - 2 * _tail(count, kept) >= level:
        kept += 1
    if not kept:
        raise ValueError(f"{count} values are too few for an interval at {level}")
    median = statistics.median(values)
    return {"median": median, "low": values[kept - 1], "high": values[-kept], "level": 1 - 2 * _tail(count, kept - 1)}


def _tail(count: int, most: int) -> float:
    """The chance that at most so many of `count` fair coins fall on one side."""
    return sum(comb(count, i) for i in range(most + 1)) / 2**count


def percent_text(found: dict[str, float], unit: float = 100, sign: str = "%") -> str:
    """An interval of ratios as a person reads it: "+1.2 % [-0.3, +2.0]"."""
    middle, low, high = (unit * (found[name] - 1) for name in ("median", "low", "high"))
    return f"{middle:+.1f} {sign} [{low:+.1f}, {high:+.1f}]"
