"""Draws the report's figures."""

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from jobs.evaluation.encoders import PIXELS
from jobs.report.comparison import EncoderRow
from jobs.report.figure_style import (
    KINDS,
    STYLE,
    add_legend,
    assign_colors,
    axis_label,
    make_axes,
    percent_factor,
    short_label,
)
from ssl_core.evaluation.protocol import is_accuracy, protocols

OF_ALL = ("alignment", "uniformity")  # what the invariance protocol says of no single transform


def ranking(rows: list[EncoderRow], protocol: str) -> Figure:
    """Draws the main number of every encoder with its 95 % interval.

    Baselines are gray, tasks blue, the ceiling green, encoders from elsewhere amber.
    """
    shown = [(row, value) for row in rows if (value := row.headline(protocol))]
    scale = percent_factor(protocol)
    with matplotlib.rc_context(STYLE):
        figure, axes = make_axes(7, 0.45 * len(shown) + 0.9)
        ends = [(v, v if low is None else low, v if high is None else high) for _, (v, low, high) in shown]
        error = [[scale * (v - low) for v, low, _ in ends], [scale * (high - v) for v, _, high in ends]]
        bars = axes.barh(
            range(len(shown)),
            [scale * v for v, _, _ in ends],
            xerr=error,
            height=0.65,
            color=[KINDS[row.kind] for row, _ in shown],
            error_kw={"elinewidth": 1.2},
        )
        axes.set_yticks(range(len(shown)), [short_label(row.name) for row, _ in shown])
        axes.bar_label(bars, [f"{100 * v:.1f}" if scale == 100 else f"{v:.3g}" for v, _, _ in ends], padding=8)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(axis_label(protocol) + (" of test images" if is_accuracy(protocol) else ""))
        low, high = min(0.0, *(low for _, low, _ in ends)), max(0.0, *(high for _, _, high in ends))
        axes.set_xlim(1.12 * scale * low, 1.12 * scale * high if high > low else 1)
    return figure


def has_stages(rows: list[EncoderRow], protocol: str) -> bool:
    """Returns whether the protocol evaluates each stage by itself."""
    return any("top1/stage2" in row.mean_values(protocol) for row in rows)


def stages(rows: list[EncoderRow], protocol: str) -> Figure:
    """Draws accuracy over the encoder's stages, shallow to deep."""
    color = assign_colors([row.name for row in rows])
    with matplotlib.rc_context(STYLE):
        figure, axes = make_axes(7, 3.4)
        for row in reversed(rows):
            numbers = row.mean_values(protocol)
            curve = {int(k.removeprefix("top1/stage")): v for k, v in numbers.items() if k.startswith("top1/stage")}
            if len(curve) > 1:
                xs = sorted(curve)
                line = {"floor": "--", "ceiling": "-."}.get(row.kind, "-")
                axes.plot(
                    xs,
                    [100 * curve[x] for x in xs],
                    line,
                    marker="o",
                    ms=4,
                    label=short_label(row.name),
                    color=color[row.name],
                )
                axes.set_xticks(xs)
        axes.set_xlabel("stage")
        axes.set_ylabel(f"{protocol} top-1, %")
        add_legend(axes)
    return figure


def pretext(rows: list[EncoderRow], protocol: str) -> Figure | None:
    """Draws accuracy at the pretext task against the main number, a point for each seed of each task that has one.

    It returns None for fewer than three points. Across tasks it is at most a hint: their accuracies are of different
    things.
    """
    name = protocols()[protocol].headline
    runs = [
        (row, run.pretext, record.numbers)
        for row in rows
        if row.kind == "task"
        for run, record in zip(row.trainings, row.records.get(protocol, ()))
    ]
    found = [
        (row, pretext["accuracy"], numbers[name])
        for row, pretext, numbers in runs
        if "accuracy" in pretext and name in numbers
    ]
    if len(found) < 3:
        return None
    color = assign_colors([row.name for row in rows])
    with matplotlib.rc_context(STYLE):
        figure, axes = make_axes(7, 3.4)
        for row in dict.fromkeys(row.name for row, _, _ in found):
            points = [(100 * x, percent_factor(protocol) * y) for one, x, y in found if one.name == row]
            axes.scatter(*zip(*points), label=short_label(row), color=color[row], s=28)
        x, y = np.array([(x, y) for _, x, y in found]).T
        if x.std() > 0 and y.std() > 0:
            r = np.corrcoef(x, y)[0, 1]
            axes.set_title(f"correlation r = {r:+.2f} over {len(x)} runs", fontsize=10, loc="left")
        axes.set_xlabel("accuracy at the pretext task, %")
        axes.set_ylabel(axis_label(protocol))
        add_legend(axes)
    return figure


def cost(rows: list[EncoderRow], protocol: str) -> Figure | None:
    """Draws the main number over seconds of training: the cheapest good task lies up and to the left."""
    shown = [
        (row, seconds, value)
        for row in rows
        if (seconds := row.cost("seconds")) is not None and (value := row.headline(protocol))
    ]
    if not shown:
        return None
    color, scale = assign_colors([row.name for row in rows]), percent_factor(protocol)
    with matplotlib.rc_context(STYLE):
        figure, axes = make_axes(7, 3.2)
        for row, seconds, (value, low, high) in shown:
            error = None if low is None or high is None else [[scale * (value - low)], [scale * (high - value)]]
            axes.errorbar(
                [seconds],
                [scale * value],
                yerr=error,
                fmt="o",
                color=color[row.name],
                label=short_label(row.name),
                elinewidth=1.2,
            )
        axes.set_xlim(left=0)
        axes.set_xlabel("seconds of training, one seed")
        axes.set_ylabel(axis_label(protocol))
        add_legend(axes)
    return figure


def invariance(rows: list[EncoderRow]) -> Figure | None:
    """Draws, for each kind of transform, how far a transformed image moves, over the distance of two different
    images."""
    kinds = [k for row in rows for k in row.mean_values("invariance") if "/" not in k and k not in OF_ALL]
    return _bar_chart(rows, "invariance", list(dict.fromkeys(kinds)), "distance to its transform / to another image")


def semantic_similarity(rows: list[EncoderRow]) -> Figure | None:
    """Draws which share of an image's nearest neighbors has its class."""
    kinds = [
        k for row in rows for k in row.mean_values("semantic_similarity") if k.startswith("purity@") and "/" not in k
    ]
    kinds = sorted(set(kinds), key=lambda kind: int(kind.partition("@")[2]))
    return _bar_chart(rows, "semantic_similarity", kinds, "share of neighbors of the same class")


def _bar_chart(rows: list[EncoderRow], protocol: str, kinds: list[str], ylabel: str) -> Figure | None:
    """Draws a group of bars for each kind, a bar for each encoder."""
    shown = [row for row in rows if protocol in row.records and row.one.task != PIXELS]
    if not kinds or not shown:
        return None
    color, width = assign_colors([row.name for row in rows]), 0.8 / len(shown)
    with matplotlib.rc_context(STYLE):
        figure, axes = make_axes(7, 3.2)
        for i, row in enumerate(shown):
            places = [k + (i - (len(shown) - 1) / 2) * width for k in range(len(kinds))]
            values = [row.mean_value(protocol, kind) or 0 for kind in kinds]
            shade = KINDS["floor"] if row.kind == "floor" else color[row.name]
            axes.bar(places, values, width, label=short_label(row.name), color=shade)
        axes.set_xticks(range(len(kinds)), kinds)
        axes.grid(axis="x", visible=False)
        axes.set_ylabel(ylabel)
        add_legend(axes)
    return figure


def lowshot(rows: list[EncoderRow]) -> Figure | None:
    """Draws accuracy over the labels that a probe may use, fewest first; bars are the spread over draws of them."""
    color = assign_colors([row.name for row in rows])
    found = {
        row.name: {
            k.removeprefix("linear/"): v
            for k, v in row.mean_values("lowshot").items()
            if k.startswith("linear/") and k.count("/") == 1
        }
        for row in rows
    }
    kinds = list(dict.fromkeys(kind for numbers in found.values() for kind in numbers))
    if not kinds:
        return None
    with matplotlib.rc_context(STYLE):
        figure, axes = make_axes(7, 3.2)
        for row in rows:
            if numbers := found[row.name]:
                spread = [100 * (row.mean_value("lowshot", f"linear/{kind}/std") or 0) for kind in kinds]
                axes.errorbar(
                    kinds,
                    [100 * numbers.get(kind, float("nan")) for kind in kinds],
                    yerr=spread,
                    marker="o",
                    ms=4,
                    elinewidth=1,
                    label=short_label(row.name),
                    color=color[row.name],
                    linestyle={"floor": "--", "ceiling": "-."}.get(row.kind, "-"),
                )
        axes.set_xlabel("labels that the probe may use")
        axes.set_ylabel("top-1, %")
        add_legend(axes)
    return figure


def training(curves: dict[str, list[dict]], metric: str, all_names: list[str]) -> Figure:
    """Draws a metric of the pretext task over the images seen, a line for each run that has it.

    Args:
        curves: The rows of metrics.jsonl of each run.
        metric: The metric's name.
        all_names: All names of the report, which decide the colors.
    """
    color = assign_colors(all_names)
    with matplotlib.rc_context(STYLE):
        figure, axes = make_axes(7, 3)
        for name, rows in curves.items():
            if rows and metric in rows[0]:
                axes.plot(
                    [r["images"] for r in rows],
                    [r[metric] for r in rows],
                    label=short_label(name),
                    lw=1.4,
                    color=color[name],
                )
        axes.set_xlabel("images seen")
        axes.set_ylabel(f"pretext {metric}")
        add_legend(axes)
    return figure
