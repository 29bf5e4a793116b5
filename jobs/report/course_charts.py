"""Makes the charts of transfer over the cost of training: along a training, and over trainings of several lengths."""

from typing import Any

from jobs.report.chart_parts import FADED, Spec, choosable_chart, chosen_points, encoder_channel, interval, quantity
from jobs.report.chart_parts import tooltip as hover_of
from jobs.report.chart_style import Mark, Marks, axis_label, percent_factor, protocol_title
from jobs.report.comparison import EncoderRow
from jobs.report.conclusions import format_number
from jobs.report.course import Course
from ssl_core.evaluation.protocol import is_accuracy

# what training costs, by what a reader chooses; a row's value divided by the number
COSTS = {"images seen": ("images", 1.0), "TMACs of the encoder": ("macs", 1e12), "seconds": ("seconds", 1.0)}


def along(courses: list[Course], protocol: str, marks: Marks) -> Spec | None:
    """Shows a protocol's main number along each training, over images, multiply-accumulates or seconds as chosen.

    A line begins at what the encoder was worth before its training, where that was measured by the protocol.
    """
    values, kept = [], []
    for course in courses:
        last, found = course.last, []
        before = last.baseline_row()
        for row in ([before] if before and protocol in before.records else []) + list(course.rows):
            if point := _point(row, marks[last], protocol):
                found.append(point)
        values += found
        kept += [marks[last]] if found else []
    scale = {"zero": True, "nice": False}
    return _chart(
        f"{protocol_title(protocol)} along training",
        values,
        kept,
        axis_label(protocol, [c.last for c in courses]),
        scale,
    )


def over_lengths(courses: list[Course], protocol: str, marks: Marks) -> Spec | None:
    """Shows a protocol's main number over what trainings of several lengths cost, on a logarithmic axis."""
    values, kept = [], []
    for course in courses:
        mark = marks[course.last]
        named = Mark(course.name, mark.color, mark.shape, mark.dash)
        found = [point for row in course.rows if (point := _point(row, named, protocol))]
        values += found
        kept += [named] if found else []
    scale = {"type": "log", "nice": False}
    return _chart(
        f"{protocol_title(protocol)} over budgets", values, kept, axis_label(protocol, [c.last for c in courses]), scale
    )


def _point(row: EncoderRow, mark: Mark, protocol: str) -> dict[str, Any] | None:
    found = row.headline(protocol)
    if found is None:
        return None
    costs = {name: (row.cost(field) or 0) / unit for name, (field, unit) in COSTS.items()}
    words = {f"{name}, in words": f"{value:,.3g}" if value < 1e4 else f"{value:,.0f}" for name, value in costs.items()}
    scaled = interval(found, percent_factor(protocol), ".1f" if is_accuracy(protocol) else ".3g")
    return {"encoder": mark.label, **scaled, "shown": format_number(row, protocol), **costs, **words}


def _chart(description: str, values: list[dict], marks: list[Mark], title: str, scale: dict) -> Spec | None:
    if not values:
        return None
    names = list(COSTS)
    over = {"name": "over", "value": names[1], "bind": {"input": "select", "options": names, "name": "over "}}
    chosen = {"calculate": "datum[over]", "as": "x"}
    x = {"field": "x", "type": "quantitative", "title": "cost of the training", "scale": scale}
    y = quantity("value", title)
    shared = {"x": x, "color": encoder_channel(marks, "color"), "opacity": FADED}
    line = {
        "mark": {"type": "line", "strokeWidth": 2},
        "encoding": {**shared, "y": y, "strokeDash": encoder_channel(marks, "strokeDash")},
    }
    layers: list[Spec] = [line]
    if any(one["low"] is not None for one in values):
        ends = {"y": quantity("low", title), "y2": {"field": "high"}}
        filled = {"filter": "isValid(datum.low) && isValid(datum.high)"}
        layers.append(
            {
                "transform": [filled],
                "mark": {"type": "area"},
                "encoding": {**shared, **ends, "opacity": {"value": 0.12}},
            }
        )
    hover = hover_of(shown=title, interval="95 % interval", **{f"{name}, in words": name for name in COSTS})
    layers.append(chosen_points(marks, {"x": x, "y": y, "tooltip": hover}, 70))
    return choosable_chart(description, values, layers, transform=[chosen], params=[over])
