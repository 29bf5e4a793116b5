"""Makes the report's charts, each the answer to one question, as specifications in Vega-Lite."""

import math
from collections.abc import Sequence

import numpy as np

from jobs.report.chart_parts import (
    FADED,
    Spec,
    choosable_chart,
    chosen_points,
    encoder_channel,
    interval,
    interval_layer,
    intervals,
    lines,
    point,
    quantity,
    tooltip,
)
from jobs.report.chart_style import Mark, Marks, axis_label, percent_factor, protocol_title
from jobs.report.comparison import EncoderRow, measure_of
from jobs.report.conclusions import format_difference, format_number
from jobs.report.over_datasets import OverDatasets
from ssl_core.evaluation.protocol import is_accuracy

MOST_POINTS = 200  # of a training curve: more are evenly spaced


def ranking(rows: list[EncoderRow], protocol: str, marks: Marks) -> Spec:
    """Shows the main number of every encoder with its 95 % interval, and lines where the baselines are."""
    scale, digits, values, kept = percent_factor(protocol), ".1f" if is_accuracy(protocol) else ".3g", [], []
    for row in rows:
        if found := row.headline(protocol):
            gain = row.gains.get(protocol)
            kept.append(marks[row])
            values.append(
                {
                    **interval(found, scale, digits),
                    "encoder": marks[row].label,
                    "kind": row.kind,
                    "shown": format_number(row, protocol),
                    "gain": format_difference(gain.mean, *gain.ends) if gain else "-",
                }
            )
    title = axis_label(protocol, rows) + (" of test images" if is_accuracy(protocol) else "")
    description = f"{protocol_title(protocol)}: every encoder with its 95 % interval"
    hover = tooltip(shown=axis_label(protocol, rows), interval="95 % interval", gain="gain")
    return intervals(description, values, kept, title, hover)


def gains_over_datasets(summary: OverDatasets, marks: Sequence[Mark]) -> Spec:
    """Shows the mean gain of every encoder over its random initialization, the best mean rank first.

    Args:
        summary: The comparison over datasets.
        marks: Those of its encoders, in its order.
    """
    values = [
        {
            **interval((gain.mean, gain.low, gain.high), 100, "+.1f"),
            "encoder": mark.label,
            "kind": "task",
            "shown": format_difference(gain.mean, gain.low, gain.high),
            "rank": f"{rank.mean:.2f} ({rank.low:.2f} to {rank.high:.2f})",
        }
        for mark, gain, rank in zip(marks, summary.gains, summary.ranks)
    ]
    values.append({"kind": "floor", "value": 0})
    title = f"mean gain over random init, {summary.protocol} top-1, points"
    of = tooltip(shown="mean gain", interval="95 % interval", rank="mean rank")
    return intervals("Mean gain over datasets", values, marks, title, of)


def has_stages(rows: list[EncoderRow], protocol: str) -> bool:
    """Returns whether the protocol evaluates each stage by itself."""
    return any(f"{measure_of(rows, protocol)}/stage2" in row.mean_values(protocol) for row in rows)


def stages(rows: list[EncoderRow], protocol: str, marks: Marks) -> Spec:
    """Shows the main number over the encoder's stages, shallow to deep."""
    values, kept, prefix = [], [], f"{measure_of(rows, protocol)}/stage"
    scale, digits = percent_factor(protocol), ".1f" if is_accuracy(protocol) else ".3g"
    for row in rows:
        numbers = row.mean_values(protocol)
        curve = {int(k.removeprefix(prefix)): v for k, v in numbers.items() if k.startswith(prefix)}
        if len(curve) > 1:
            kept.append(marks[row])
            values += [point(marks[row], x, scale * curve[x], digits) for x in sorted(curve)]
    title = axis_label(protocol, rows)
    x = {"field": "x", "type": "ordinal", "title": "stage of the encoder", "axis": {"labelAngle": 0}}
    return lines(f"{protocol}: each stage", values, kept, x, title, "stage")


def lowshot(rows: list[EncoderRow], marks: Marks) -> Spec | None:
    """Shows accuracy over the labels that a probe may use, fewest first; bars are the spread over draws of them."""
    values, kept, kinds = [], [], {}
    for row in rows:
        numbers = row.mean_values("lowshot")
        found = {k.removeprefix("linear/"): v for k, v in numbers.items() if k.startswith("linear/")}
        for kind, value in ((k, v) for k, v in found.items() if "/" not in k):
            spread, kinds[kind] = 100 * found.get(f"{kind}/std", 0.0), None
            ends = {"low": 100 * value - spread, "high": 100 * value + spread, "spread": f"{spread:.1f}"}
            unit = "share" if kind.endswith("%") else "of each class"  # no line leads from one to the other
            values.append({**point(marks[row], kind, 100 * value, ".1f"), **ends, "unit": unit})
        kept += [marks[row]] if found else []
    if not values:
        return None
    axis = {"labelAngle": 0}
    kinds = sorted(kinds, key=lambda kind: (not kind.endswith("%"), float(kind.strip("k%"))))
    x = {"field": "x", "type": "ordinal", "title": "labels that the probe may use", "sort": kinds, "axis": axis}
    y = "linear probe top-1, %"
    spread = {
        "mark": {"type": "rule", "strokeWidth": 1.2},
        "encoding": {
            "x": x,
            "y": quantity("low", y),
            "y2": {"field": "high"},
            "color": encoder_channel(kept, "color"),
            "opacity": FADED,
        },
    }
    return lines("Accuracy with few labels", values, kept, x, y, "labels", spread=spread)


def cost(rows: list[EncoderRow], protocol: str, marks: Marks) -> Spec | None:
    """Shows the main number over seconds of training: the cheapest good task lies up and to the left."""
    scale, values, kept = percent_factor(protocol), [], []
    for row in rows:
        seconds, found = row.cost("seconds"), row.headline(protocol)
        if seconds is not None and found:
            kept.append(marks[row])
            values.append(
                {
                    **interval(found, scale, ".1f" if is_accuracy(protocol) else ".3g"),
                    "encoder": marks[row].label,
                    "x": seconds,
                    "seconds": f"{seconds:,.0f}",
                    "shown": format_number(row, protocol),
                }
            )
    if not values:
        return None
    title = axis_label(protocol, rows)
    x = quantity("x", "seconds of training, one seed", zero=True)
    shared = {"x": x, "color": encoder_channel(kept, "color"), "opacity": FADED}
    hover = tooltip(seconds="seconds", shown=title, interval="95 % interval")
    ends = {"y": quantity("low", title), "y2": {"field": "high"}}
    points = chosen_points(kept, {"x": x, "y": quantity("value", title), "tooltip": hover})
    layers = [*interval_layer(values, {**shared, **ends, "tooltip": hover}), points]
    return choosable_chart("Transfer over training cost", values, layers)


def pretext(rows: list[EncoderRow], protocol: str, marks: Marks) -> Spec | None:
    """Shows accuracy at the pretext task against the main number, a point for each seed of each task that has one.

    It returns None for fewer than three points. Across tasks it is at most a hint: their accuracies are of different
    things.
    """
    name, scale, values, kept = measure_of(rows, protocol), percent_factor(protocol), [], []
    for row in (row for row in rows if row.kind == "task"):
        for run, record in zip(row.trainings, row.records.get(protocol, ())):
            x, y = run.pretext.get("accuracy"), record.numbers.get(name)
            if x is not None and y is not None and math.isfinite(x) and math.isfinite(y):
                kept.append(marks[row])
                of = point(marks[row], 100 * x, scale * y, ".1f" if scale == 100 else ".3g")
                values.append({**of, "accuracy": f"{100 * x:.1f}"})
    if len(values) < 3:
        return None
    x, y = np.array([(one["x"], one["value"]) for one in values]).T
    r = f"correlation r = {np.corrcoef(x, y)[0, 1]:+.2f} over {len(x)} runs" if x.std() > 0 and y.std() > 0 else ""
    title, measure = "accuracy at the pretext task, %", axis_label(protocol, rows)
    hover = tooltip(accuracy=title, shown=measure)
    encoding = {"x": quantity("x", title), "y": quantity("value", measure), "tooltip": hover}
    return choosable_chart("Pretext accuracy against transfer", values, [chosen_points(kept, encoding)], title=r)


def training(curves: list[tuple[Mark, list[dict]]], metric: str) -> Spec:
    """Shows a metric of the pretext task over the images seen, a line for each run that has it.

    Args:
        curves: The mark of each run, with its rows of metrics.jsonl, of which at most MOST_POINTS are shown.
        metric: The metric's name.
    """
    values, kept = [], []
    for mark, rows in curves:
        points = [row for row in rows if math.isfinite(row.get(metric, math.nan))]
        places = np.unique(np.linspace(0, len(points) - 1, min(len(points), MOST_POINTS)).round().astype(int))
        values += [point(mark, points[i]["images"], points[i][metric], ".4g") for i in places]
        kept += [mark] if points else []
    x = quantity("x", "images seen", zero=True)
    spec = lines(f"Pretext {metric}", values, kept, x, f"pretext {metric}", "images seen")
    spec["layer"][-1]["mark"]["size"] = 22
    return spec
