"""The report's figures, as SVG text that stands in the page itself."""

import io

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from jobs.results import Row

KINDS = {"floor": "#9aa5b1", "task": "#2a6fdb", "ceiling": "#2f9e64", "brought": "#c77d18"}
STYLE = {
    "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "figure.constrained_layout.use": True,
}  # fmt: skip


def colours(names: list[str]) -> dict[str, str]:
    """A colour for each name, the same in every figure of a report."""
    return {name: f"C{i % 10}" for i, name in enumerate(sorted(names))}


def ranking(rows: list[Row], protocol: str) -> Figure:
    """Test accuracy of every encoder with its 95 % interval; floors grey, the ceiling green, others' amber."""
    shown = [row for row in rows if row.top1(protocol)]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7, 0.45 * len(shown) + 0.9))
        values = [row.top1(protocol) for row in shown]
        error = [[100 * (v - low) for v, low, _ in values], [100 * (high - v) for v, _, high in values]]
        bars = axes.barh([row.name for row in shown], [100 * v[0] for v in values], xerr=error, height=0.65,
                         color=[KINDS[row.kind] for row in shown], error_kw={"elinewidth": 1.2})  # fmt: skip
        axes.bar_label(bars, [f"{100 * v[0]:.1f}" for v in values], padding=8)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(f"{protocol} top-1, % of test images")
        axes.set_xlim(0, max(100 * v[2] for v in values) * 1.12)
    return figure


def stages(rows: list[Row], protocol: str) -> Figure:
    """Accuracy over the encoder's stages, shallow to deep."""
    colour = colours([row.name for row in rows])
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7, 3.4))
        for row in reversed(rows):
            numbers = row.cells.get(protocol, {}).get("numbers", {})
            curve = {int(k.removeprefix("top1/stage")): v for k, v in numbers.items() if k.startswith("top1/stage")}
            if len(curve) > 1:
                xs = sorted(curve)
                line = {"floor": "--", "ceiling": "-."}.get(row.kind, "-")
                axes.plot(xs, [100 * curve[x] for x in xs], line, marker="o", ms=4, label=row.name,
                          color=colour[row.name])  # fmt: skip
                axes.set_xticks(xs)
        axes.set_xlabel("stage")
        axes.set_ylabel(f"{protocol} top-1, %")
        axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def training(curves: dict[str, list[dict]], metric: str, all_names: list[str]) -> Figure:
    """A metric of the pretext task over the images seen, a line for each run that has it."""
    colour = colours(all_names)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7, 3))
        for name, rows in curves.items():
            if rows and metric in rows[0]:
                axes.plot([r["images"] for r in rows], [r[metric] for r in rows], label=name, lw=1.4,
                          color=colour[name])  # fmt: skip
        axes.set_xlabel("images seen")
        axes.set_ylabel(f"pretext {metric}")
        axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def svg(figure: Figure) -> str:
    """The figure as an <svg> element."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]
