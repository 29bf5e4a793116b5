"""Where each kernel stands under the roof that memory bandwidth is: `python -m benchmarks.plots.roofline
RESULT.json`."""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot


def draw(result: dict, path: Path) -> None:
    """Bytes that the work must move a second, over those bytes: the kernels, and a copy of as many bytes."""
    layouts = list(dict.fromkeys(line["layout"] for line in result["lines"]))
    figure, axes = pyplot.subplots(1, len(layouts), figsize=(5.5 * len(layouts), 4), sharey=True, squeeze=False)
    for axis, layout in zip(axes[0], layouts):
        lines = [line for line in result["lines"] if line["layout"] == layout and line["kernel"] != "draw"]
        roof = sorted((line["bytes"], _rate(line, "copy")) for line in lines)
        axis.plot(*zip(*roof), color="black", linewidth=1, label="copy")
        for kernel in dict.fromkeys(line["kernel"] for line in lines):
            points = [(line["bytes"], _rate(line, "tilespin")) for line in lines if line["kernel"] == kernel]
            axis.plot(*zip(*points), marker="o", markersize=4, linestyle="none", label=kernel)
        axis.set(xscale="log", yscale="log", xlabel="bytes that a call must read and write", title=layout)
    axes[0][0].set_ylabel("GB/s")
    axes[0][0].legend(fontsize=8, loc="lower right")
    machine = result["machine"]
    figure.suptitle(
        f"{machine['gpu'] or machine['cpu']}, torch {machine['torch']}, triton {machine['triton']}", fontsize=9
    )
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _rate(line: dict, name: str) -> float:
    times = line.get("device_ms", {}).get(name, {}).get("cold") or line["ms"][name]
    return line["bytes"] / times["p50"] / 1e6


if __name__ == "__main__":
    source = Path(sys.argv[1])
    draw(json.loads(source.read_text()), source.with_suffix(".svg"))
