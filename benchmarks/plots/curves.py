"""Plots of benchmarks.scaling, recovery and goodput: `python -m benchmarks.plots.curves RESULT.json` draws it beside
that."""

import json
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot


def scaling(source: Path) -> None:
    """Images a second over workers, with the intervals of the gains, beside what a perfect machine would give."""
    result = json.loads(source.read_text())
    lines, first = result["scaling"], result["scaling"][0]
    figure, axis = pyplot.subplots(figsize=(5, 3.6))
    counts = sorted({line["workers"] for line in lines})
    base = first["images_per_second"]
    axis.plot(counts, [base * count / counts[0] for count in counts], ":", color="black", label="perfect")
    for kind, label in (("strong", "the same batch, shared"), ("weak", "the same share of a larger batch")):
        shown = [line for line in lines if line["kind"] == kind]
        gains = [1.0, *(line["gain"]["median"] for line in shown)]
        spread = [
            [0.0, *(abs(line["gain"][end] - line["gain"]["median"]) for line in shown)] for end in ("low", "high")
        ]
        xs = [first["workers"], *(line["workers"] for line in shown)]
        axis.errorbar(
            xs,
            [base * gain for gain in gains],
            yerr=[[base * v for v in ends] for ends in spread],
            marker="o",
            capsize=3,
            label=label,
        )
    axis.set(xlabel="workers", ylabel="images a second", xticks=counts, ylim=(0, None), title=_where(result))
    axis.legend(fontsize=8)
    _keep(figure, source)


def recovery(source: Path) -> None:
    """A bar for each kind of fault, of medians: until it is noticed, until training goes on, until that is made up."""
    result = json.loads(source.read_text())
    found = defaultdict(list)
    for line in result["faults"]:
        if "failed" not in line:  # not survived
            found[line["fault"]].append(line)
    names = list(reversed(found))
    figure, axis = pyplot.subplots(figsize=(7.5, 3.6))
    left = [0.0] * len(names)
    for part, color in (("noticed", "tab:red"), ("resumed", "tab:blue"), ("recovered", "tab:gray")):
        ends = [sorted(line[part] for line in found[name])[len(found[name]) // 2] for name in names]
        axis.barh(names, [end - begin for end, begin in zip(ends, left)], left=left, color=color, label=part)
        left = ends
    axis.set(xlabel="seconds after the fault", title=_where(result))
    axis.legend(fontsize=8)
    _keep(figure, source)


def goodput(source: Path) -> None:
    """Goodput over GPUs, each line the simulation of one way to restart at its best interval, crosses its formula."""
    result = json.loads(source.read_text())
    figure, axis = pyplot.subplots(figsize=(6.5, 4))
    for name, lines in result["scenarios"].items():
        gpus = [line["gpus"] for line in lines]
        (drawn,) = axis.plot(gpus, [100 * line["simulated"] for line in lines], marker="o", markersize=3, label=name)
        axis.plot(gpus, [100 * line["formula"] for line in lines], "x", color=drawn.get_color(), markersize=7)
    axis.set(xscale="log", xlabel="GPUs", ylabel="goodput, %", title="Simulated, not measured; crosses: the formula")
    axis.set_xticks(gpus, [f"{count:,}" for count in gpus], fontsize=8)
    axis.minorticks_off()
    axis.legend(fontsize=8)
    _keep(figure, source)


def _where(result: dict) -> str:
    return f"{result['machine']['gpu'] or result['machine']['cpu']}, {result['machine']['cores']} cores"


def _keep(figure, source: Path) -> None:
    figure.tight_layout()
    figure.savefig(source.with_suffix(".svg"), metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    for kind in (scaling, recovery, goodput):
        if f"-{kind.__name__}" in sys.argv[1]:
            kind(Path(sys.argv[1]))
