"""The report's figures, as SVG text that stands in the page itself."""

import io

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from jobs.results import Row
from ssl_core.evaluators.features import protocols

KINDS = {"floor": "#9aa5b1", "task": "#2a6fdb", "ceiling": "#2f9e64"}
STYLE = {
    "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "figure.constrained_layout.use": True,
}  # fmt: skip


def colours(names: list[str]) -> dict[str, str]:
    """A colour for each name, the same in every figure of a report."""
    return {name: f"C{i % 10}" for i, name in enumerate(sorted(names))}


def ranking(rows: list[Row], protocol: str) -> Figure:
    """The headline of every encoder, an accuracy with its 95 % interval; floors grey, the ceiling green."""
    shown = [(row, value) for row in rows if (value := row.headline(protocol))]
    name = protocols()[protocol].headline
    scale = 100 if name == "top1" else 1
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7, 0.45 * len(shown) + 0.9))
        ends = [(v, v if low is None else low, v if high is None else high) for _, (v, low, high) in shown]
        error = [[scale * (v - low) for v, low, _ in ends], [scale * (high - v) for v, _, high in ends]]
        bars = axes.barh([row.name for row, _ in shown], [scale * v for v, _, _ in ends], xerr=error, height=0.65,
                         color=[KINDS[row.kind] for row, _ in shown], error_kw={"elinewidth": 1.2})  # fmt: skip
        axes.bar_label(bars, [f"{100 * v:.1f}" if scale == 100 else f"{v:.3g}" for v, _, _ in ends], padding=8)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(f"{protocol} top-1, % of test images" if name == "top1" else f"{protocol}: {name}")
        axes.set_xlim(0, max(scale * high for _, _, high in ends) * 1.12)
    return figure


def has_stages(rows: list[Row], protocol: str) -> bool:
    """Whether the protocol judges each stage by itself."""
    return any("top1/stage2" in row.cells.get(protocol, {}).get("numbers", {}) for row in rows)


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
