"""Makes the report's charts of what representations are like, as specifications in Vega-Lite: a point an encoder."""

from jobs.evaluation.encoders import PIXELS
from jobs.report.chart_parts import Spec, choosable_chart, chosen_points, point, quantity, tooltip
from jobs.report.chart_style import Marks, protocol_title
from jobs.report.comparison import EncoderRow

OF_ALL = ("alignment", "uniformity")  # what the invariance protocol says of no single transform
CLUSTERS = {"clusters/accuracy": "accuracy", "clusters/nmi": "NMI", "clusters/ari": "ARI"}
KIND_ROW = 40  # pixels of a row with all encoders


def invariance(rows: list[EncoderRow], marks: Marks) -> Spec | None:
    """Shows, for each kind of transform, how far a transformed image moves, over the distance of two different
    images."""
    return _dots(rows, "invariance", _transforms(rows, "invariance"), "relative distance; 0 is invariant", marks)


def equivariance(rows: list[EncoderRow], marks: Marks) -> Spec | None:
    """Shows, for each kind of transform, the error of a linear map that says where a transformed image goes."""
    title = "relative error of a linear map; 0 is predictable"
    return _dots(rows, "equivariance", _transforms(rows, "equivariance"), title, marks)


def parameters(rows: list[EncoderRow], marks: Marks) -> Spec | None:
    """Shows how well each parameter of a transform can be read off the features of an image before and after it."""
    measured = dict.fromkeys(k for row in rows for k in row.mean_values("equivariance") if k.startswith("r2/"))
    kinds = {k: k.removeprefix("r2/") for k in measured if k.count("/") == 1}
    return _dots(rows, "equivariance", kinds, "R² of the parameter; 1 is read off", marks)


def movement(rows: list[EncoderRow], marks: Marks) -> Spec | None:
    """Shows how predictably features move under a turn over how far they move; None where only one is measured."""
    shown, values = [], []
    for row in rows:
        far, error = (row.mean_value(protocol, "rotation") for protocol in ("invariance", "equivariance"))
        if far is not None and error is not None:
            shown.append(marks[row])
            values.append({**point(marks[row], far, error, ".3f"), "far": f"{far:.3f}"})
    if not values:
        return None
    x, y = "relative distance that a turn moves features", "relative error of a linear map"
    encoding = {
        "x": quantity("x", x, zero=True),
        "y": quantity("value", y, zero=True),
        "tooltip": tooltip(far=x, shown=y),
    }
    return choosable_chart("Moving, and moving predictably", values, [chosen_points(shown, encoding)])


def semantic_similarity(rows: list[EncoderRow], marks: Marks) -> Spec | None:
    """Shows which share of an image's nearest neighbors has its class."""
    measured = {k for row in rows for k in row.mean_values("semantic_similarity")}
    kinds = sorted((k for k in measured if k.startswith("purity@") and "/" not in k), key=lambda k: int(k[7:]))
    title = "share of neighbors of the same class"
    return _dots(rows, "semantic_similarity", dict(zip(kinds, kinds)), title, marks)


def clusters(rows: list[EncoderRow], marks: Marks) -> Spec | None:
    """Shows how well clusters of features agree with classes."""
    return _dots(rows, "semantic_similarity", CLUSTERS, "agreement of clusters with classes; 1 is perfect", marks)


def _transforms(rows: list[EncoderRow], protocol: str) -> dict[str, str]:
    """Returns the kinds of transforms that a protocol measured."""
    names = [k for row in rows for k in row.mean_values(protocol) if "/" not in k and k not in OF_ALL]
    return {name: name for name in names}


def _dots(rows: list[EncoderRow], protocol: str, kinds: dict[str, str], title: str, marks: Marks) -> Spec | None:
    """Shows a row for each kind of measure, with a point for each encoder.

    Args:
        rows: The encoders.
        protocol: What measured them.
        kinds: The measures' names, each with what people call it.
        title: What the measures have in common.
        marks: The encoders' marks.
    """
    shown = [row for row in rows if protocol in row.records and row.one.task != PIXELS]
    values = [
        {"encoder": marks[row].label, "kind": label, "value": value, "shown": f"{value:.3f}"}
        for row in shown
        for kind, label in kinds.items()
        if (value := row.mean_value(protocol, kind)) is not None
    ]
    if not values:
        return None
    kept, labels = [marks[row] for row in shown], list(kinds.values())
    axis = {"title": None, "grid": True, "ticks": False, "domain": False}
    encoding = {
        "y": {"field": "kind", "type": "nominal", "sort": labels, "axis": axis},
        "x": quantity("value", title, zero=True),
        "tooltip": tooltip(kind="measure", shown=title),
    }
    return choosable_chart(protocol_title(protocol), values, [chosen_points(kept, encoding)], KIND_ROW * len(kinds))
