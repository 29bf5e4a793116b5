"""Makes the parts that charts have in common, as specifications in Vega-Lite: rows with intervals, lines, points."""

from collections.abc import Sequence
from typing import Any

from jobs.report.chart_style import Mark

Spec = dict[str, Any]

ROW = 30  # pixels of an encoder's row
NUMBERS = 86  # pixels beside rows for their numbers in words
FADED = {"condition": {"param": "chosen", "value": 1}, "value": 0.12}  # opacity: what is not chosen in the legend
CHOSEN = {"name": "chosen", "select": {"type": "point", "fields": ["encoder"]}, "bind": "legend"}


def chart(description: str, values: list[Spec], layers: list[Spec], height: int = 300, **more: Any) -> Spec:
    """Returns a chart in Vega-Lite that is as wide as its place in the page.

    Args:
        description: What a screen reader says of it.
        values: The data.
        layers: The marks, which share the data.
        height: In pixels, without axes and legend.
        more: Other properties of the specification.
    """
    return {
        "description": description,
        "width": "container",
        "height": height,
        "data": {"values": values},
        "layer": layers,
        **more,
    }


def choosable_chart(description: str, values: list[Spec], layers: list[Spec], height: int = 300, **more: Any) -> Spec:
    """Returns a chart, see `chart`, with a legend, in which a click chooses an encoder and the others fade."""
    first, *others = layers  # Vega-Lite listens to the legend of the first layer
    return chart(description, values, [{**first, "params": [CHOSEN]}, *others], height, **more)


def encoder_channel(marks: Sequence[Mark], channel: str) -> Spec:
    """Returns the encoding of a channel, "color", "shape" or "strokeDash", by encoder, with the legend of `marks`."""
    found, shown = {"color": "color", "shape": "shape", "strokeDash": "dash"}[channel], list(dict.fromkeys(marks))
    return {
        "field": "encoder",
        "type": "nominal",
        "title": None,
        "legend": {"symbolLimit": 0},  # all encoders, however many
        "scale": {"domain": [one.label for one in shown], "range": [_plain(getattr(one, found)) for one in shown]},
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def quantity(field: str, title: str | None = None, **scale: Any) -> Spec:
    """Returns the encoding of a number on an axis, which begins at zero only if `scale` says so."""
    return {"field": field, "type": "quantitative", "title": title, "scale": {"zero": False, **scale}}


def tooltip(**fields: str) -> list[Spec]:
    """Returns what is shown of a mark under the pointer: its encoder, and these fields with their titles."""
    shown = {"encoder": "encoder", **fields}
    return [{"field": field, "title": title} for field, title in shown.items()]


def interval(found: tuple[float, float | None, float | None], factor: float, digits: str) -> Spec:
    """Returns the data of a number with the ends of its interval, times `factor`, and these in words."""
    value, low, high = (end if end is None else factor * end for end in found)
    words = "-" if low is None or high is None else f"{low:{digits}} to {high:{digits}}"
    return {"value": value, "low": low, "high": high, "interval": words}


def intervals(description: str, values: list[Spec], marks: Sequence[Mark], title: str, hover: list[Spec]) -> Spec:
    """Shows a row for each encoder: its number as a point on its interval, and in words beside it."""
    order = list(dict.fromkeys(mark.label for mark in marks))
    y = {
        "field": "encoder",
        "type": "nominal",
        "sort": order,
        "scale": {"domain": order},
        "axis": {"title": None, "ticks": False, "domain": False, "grid": False},
    }
    color = {**encoder_channel(marks, "color"), "legend": None}
    shape = {**encoder_channel(marks, "shape"), "legend": None}
    x = quantity("value", title)
    named = {"filter": "isValid(datum.encoder)"}
    baselines = {
        "transform": [{"filter": "datum.kind === 'floor'"}],
        "mark": {"type": "rule", "strokeDash": [2, 3], "style": "reference"},
        "encoding": {"x": x},
    }
    points = {
        "transform": [named],
        "mark": {"type": "point", "filled": True, "opacity": 1, "size": 120},
        "encoding": {"y": y, "x": x, "color": color, "shape": shape, "tooltip": hover},
    }
    numbers = {
        "transform": [named],
        "mark": {"type": "text", "align": "right", "dx": NUMBERS - 2, "fontSize": 12.5},
        "encoding": {"y": y, "x": {"value": "width"}, "text": {"field": "shown"}},
    }
    ends = {"x": quantity("low", title), "x2": {"field": "high"}}
    layers = [
        *([baselines] if any(one["kind"] == "floor" for one in values) else []),
        *interval_layer(values, {"y": y, "color": color, "tooltip": hover, **ends}),
        points,
        numbers,
    ]
    return chart(description, values, layers, ROW * len(order))


def interval_layer(values: list[Spec], encoding: Spec) -> list[Spec]:
    """Returns the layer of intervals, or no layer if there are none: Vega warns of an empty one in the console."""
    if all(one.get("low") is None for one in values):
        return []
    filled = {"filter": "isValid(datum.low) && isValid(datum.high)"}
    mark = {"type": "rule", "strokeWidth": 2.5, "strokeCap": "round"}
    return [{"transform": [filled], "mark": mark, "encoding": encoding}]


def point(mark: Mark, x: int | float | str, value: float, digits: str) -> Spec:
    """Returns the data of a point at `x`, with its value in words."""
    return {"encoder": mark.label, "x": x, "value": value, "shown": f"{value:{digits}}"}


def lines(description: str, values: list[Spec], marks: Sequence[Mark], x: Spec, y: str, of: str, **more: Spec) -> Spec:
    """Shows a line with points for each encoder; those that are chosen in the legend stand out.

    Args:
        description: What a screen reader says of it.
        values: The data, see `point`.
        marks: The encoders' marks.
        x: The encoding of `x`.
        y: The name of the values.
        of: The name of `x`.
        more: A layer between lines and points: the spread, a field of the data.
    """
    shared = {"x": x, "y": quantity("value", y)}
    dash = encoder_channel(marks, "strokeDash")
    color = {"color": encoder_channel(marks, "color"), "opacity": FADED}
    hover = tooltip(x=of, shown=y, **dict.fromkeys(more, "± over draws"))
    line = {
        "mark": {"type": "line", "strokeWidth": 2},
        "encoding": {**shared, **color, "strokeDash": dash, "detail": {"field": "unit"}},
    }
    points = chosen_points(marks, {**shared, "tooltip": hover}, 70)
    return choosable_chart(description, values, [line, *more.values(), points])


def chosen_points(marks: Sequence[Mark], encoding: Spec, size: int = 110) -> Spec:
    """Returns a layer of points, of which those that are chosen in the legend stand out."""
    channels = {channel: encoder_channel(marks, channel) for channel in ("color", "shape")}
    return {
        "mark": {"type": "point", "filled": True, "size": size},
        "encoding": {**encoding, **channels, "opacity": FADED},
    }
