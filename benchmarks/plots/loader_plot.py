"""Images a second of every reader: `python -m benchmarks.plots.loader_plot RESULT.json` draws it beside the result."""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot


def draw(source: Path) -> None:
    """A panel for each size, with the most cores that were used: medians, and p20 to p80 as whiskers."""
    result = json.loads(source.read_text())
    lines = [line for line in result["lines"] if line["stage"] == "to a batch"]
    cores = max(line["cores"] for line in lines)
    sizes = sorted({line["size"] for line in lines})
    figure, axes = pyplot.subplots(1, len(sizes), figsize=(3.2 * len(sizes) + 2, 3.6), squeeze=False, sharey=True)
    names = [
        line["reader"]
        for line in sorted(lines, key=lambda line: line["p50"])
        if (line["size"], line["cores"]) == (sizes[-1], cores)
    ]
    for axis, size in zip(axes[0], sizes):
        found = {line["reader"]: line for line in lines if (line["size"], line["cores"]) == (size, cores)}
        shown = [found[name] for name in names]
        middle = [line["p50"] for line in shown]
        spread = [[line["p50"] - line["p20"] for line in shown], [line["p80"] - line["p50"] for line in shown]]
        colors = ["tab:blue" if name.startswith("tilespin") else "tab:gray" for name in names]
        axis.barh(names, middle, xerr=spread, color=colors, ecolor="black", capsize=2, error_kw={"linewidth": 0.8})
        axis.set(title=f"{size} px", xlabel="images a second")
        axis.tick_params(labelsize=8)
    machine = result["machine"]
    photos = f"{result['images']} photos of {result['mean_bytes'] / 1e3:.0f} kB"
    figure.suptitle(f"{machine['gpu'] or machine['cpu']}, {cores} cores, {photos}", fontsize=9)
    figure.tight_layout()
    figure.savefig(source.with_suffix(".svg"), metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
