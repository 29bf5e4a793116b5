"""Whole trainings beside their ceiling: `python -m benchmarks.plots.throughput_plot RESULT.json` draws it beside it."""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot

COLORS = {
    "Tilespin": "tab:blue",
    "Tilespin, packed": "lightskyblue",
    "DataLoader, torchvision": "tab:gray",
    "DataLoader, lightly": "darkgray",
}
CEILING = "one batch"


def draw(source: Path) -> None:
    """A bar for each way of making batches: its rate as a share of that on one batch which never changes, medians of
    rounds, and the least and the most of them as whiskers."""
    result = json.loads(source.read_text())
    cases = result["cases"]
    figure, axis = pyplot.subplots(figsize=(7.5, 1.2 + 0.16 * sum(len(case["sides"]) for case in cases.values())))
    ticks, place = {}, 0.0
    for title, case in cases.items():
        sides = [name for name in COLORS if name in case["sides"]]
        ceiling = case["sides"][CEILING]["median"]
        for name in sides:
            line = case["sides"][name]
            middle, low, high = (line[key] / ceiling for key in ("median", "low", "high"))
            spread = [[middle - low], [high - middle]]
            label = name if name not in axis.get_legend_handles_labels()[1] else None
            axis.barh(
                place,
                middle,
                0.9,
                xerr=spread,
                color=COLORS[name],
                ecolor="black",
                error_kw={"linewidth": 0.6},
                label=label,
            )
            place += 1
        ticks[place - (len(sides) + 1) / 2] = title
        place += 0.8
    axis.set_yticks(list(ticks), list(ticks.values()), fontsize=7)
    axis.axvline(1, color="black", linewidth=0.8)
    axis.invert_yaxis()
    machine = result["machine"]
    where = f"{machine['gpu'] or machine['cpu']}, {machine['cores']} cores"
    axis.set(xlabel="images a second, as a share of training on one batch that never changes", title=where)
    figure.legend(fontsize=7, loc="lower center", ncol=len(COLORS))
    figure.tight_layout(rect=(0, 0.3 / figure.get_figheight(), 1, 1))
    figure.savefig(source.with_suffix(".svg"), metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
