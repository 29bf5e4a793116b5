"""Has what all figures of a report share: style, colors, names, axes, legend, and their writing as SVG."""

import io
import warnings
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jobs.report.comparison import readable
from ssl_core.evaluation.protocol import is_accuracy, protocols

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

KINDS = {"floor": "#9aa5b1", "task": "#2a6fdb", "ceiling": "#2f9e64", "external": "#c77d18"}
STYLE: "dict[RcKeyType, Any]" = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "figure.constrained_layout.use": True,
    "text.parse_math": False,  # a name may hold dollars
}
LONGEST = 40  # characters of a name in a figure


def assign_colors(names: list[str]) -> dict[str, str]:
    """Returns a color for each name, the same in every figure of a report."""
    return {name: f"C{i % 10}" for i, name in enumerate(sorted(names))}


def short_label(name: str) -> str:
    """Returns a row's name as figures show it: a long one without its middle.

    None begins with an underscore, which matplotlib leaves out of legends.
    """
    name, half = readable(name), LONGEST // 2
    name = name if len(name) <= LONGEST else f"{name[:half]}…{name[-half:]}"
    return f" {name}" if name.startswith("_") else name


def make_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """Makes a figure of this size in inches, and its axes. Pyplot, which keeps every figure, knows nothing of it."""
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots()


def percent_factor(protocol: str) -> int:
    """Returns what a protocol's main number is multiplied by to be shown: 100 for an accuracy, else 1."""
    return 100 if is_accuracy(protocol) else 1


def axis_label(protocol: str) -> str:
    """Returns the name of a protocol's main number, for an axis."""
    return f"{protocol} top-1, %" if is_accuracy(protocol) else f"{protocol}: {protocols()[protocol].headline}"


def add_legend(axes: Axes) -> None:
    """Puts the legend beside the axes; a figure with many names becomes as high as these need."""
    names = axes.get_legend_handles_labels()[1]
    figure = axes.figure
    assert isinstance(figure, Figure)  # not a part of one: `make_axes` made it
    figure.set_figheight(max(figure.get_figheight(), 0.2 * len(names) + 0.5))
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))


def figure_to_svg(figure: Figure) -> str:
    """Returns the figure as an <svg> element. Its text stays text: the reader's fonts have signs that matplotlib's
    lack."""
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
