"""`tilespin compare STUDY`: which task learned the best representation, in the terminal, a report and W&B."""

from dataclasses import dataclass
from typing import Annotated

import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from jobs.layout import Study
from jobs.options import parse
from jobs.report import write_report
from jobs.results import Row, as_csv, gather
from jobs.tracking import Mode, Tracker, resolve, say_sync
from ssl_core.evaluators import features
from ssl_core.files import exists, read_json, read_text, write_text


@dataclass(frozen=True, kw_only=True)
class Options:
    """Compare the encoders of a study: table, results.csv, report.html, and a summary run in W&B."""

    study: Annotated[str, tyro.conf.Positional]
    """the study's folder, such as runs/demo"""
    tracking: Mode = "auto"
    """Weights & Biases; auto: online if you are logged in, else offline"""


def main(arguments: list[str]) -> None:
    options = parse(Options, "compare", arguments)
    study = Study.existing(options.study)
    with study.held():
        show(study, resolve(options.tracking))


def show(study: Study, tracking: Mode) -> None:
    """Prints the table. Where numbers are new, writes report.html, the summary run in W&B, and last results.csv,
    which says that the others are up to date."""
    rows, evaluation = gather(study)
    console = Console()
    accuracies, others = by_kind(evaluation.protocols)
    if accuracies:
        console.print(table(rows, accuracies))
    if others:
        console.print(diagnostics(rows, others))
    for line in conclusions(rows, evaluation.protocols[0]):
        console.print(line, highlight=False, markup=False)
    numbers = as_csv(rows)
    if not (exists(study.results) and exists(study.report) and read_text(study.results) == numbers):
        write_report(study, rows, evaluation)
        _track(study, rows, evaluation.protocols, tracking)
        write_text(study.results, numbers)
    print(f"report: {study.report}\nnumbers: {study.results}")
    say_sync(study)


def by_kind(protocols: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """-> (protocols whose headline is an accuracy, the others)."""
    known = features.protocols()
    accuracies = tuple(name for name in protocols if known[name].headline == "top1")
    return accuracies, tuple(name for name in protocols if name not in accuracies)


def table(rows: list[Row], protocols: tuple[str, ...]) -> Table:
    """The comparison for the terminal, in percent; 95 % intervals behind ±."""
    view = Table(title="top-1 on test images, frozen encoder, %; 95 % intervals", box=box.SIMPLE_HEAD,
                 padding=(0, 1, 0, 0), pad_edge=False)  # fmt: skip
    view.add_column("task", no_wrap=True)
    for name in (protocols[0], "gain", *protocols[1:], "images", "TMACs", "s"):
        view.add_column(name, justify="right", no_wrap=True)
    kind = None
    for row in rows:
        if kind not in (None, row.kind):
            view.add_section()
        kind = row.kind
        first, *others = (number(row.headline(protocol)) for protocol in protocols)
        gain = row.gains.get(protocols[0])
        cost = ("", "", "")
        if d := row.described:
            cost = (
                f"{d['images'] / 1000:,.0f}k" if d["images"] >= 10_000 else f"{d['images']:,}",
                f"{d['macs'] / 1e12:.2f}",
                f"{d['seconds']:.0f}",
            )
        view.add_row(row.name, first, difference(gain) if gain else "", *others, *cost)
    return view


def diagnostics(rows: list[Row], protocols: tuple[str, ...]) -> Table:
    """The headlines of protocols that are no accuracies, with an arrow to where better is."""
    view = Table(title="diagnostics of the frozen encoder", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    view.add_column("task", no_wrap=True)
    for name in protocols:
        module = features.protocols()[name]
        view.add_column(f"{name}\n{module.headline} {'↑' if module.higher else '↓'}", justify="right")
    for row in rows:
        view.add_row(row.name, *(number(row.headline(protocol)) for protocol in protocols))
    return view


def number(value: tuple[float, float | None, float | None] | None) -> str:
    """A headline: an accuracy in percent with its interval, any other number in three digits."""
    if value is None:
        return "-"
    middle, low, high = value
    return f"{middle:.3g}" if low is None or high is None else f"{100 * middle:.1f} ±{50 * (high - low):.1f}"


def difference(value: tuple[float, float, float]) -> str:
    return f"{100 * value[0]:+.1f} ±{50 * (value[2] - value[1]):.1f}"


def conclusions(rows: list[Row], protocol: str) -> list[str]:
    """What the numbers allow to say, in sentences."""
    said = ["gain: over the same encoder at random initialisation, under the same normalisation"]
    tasks = [row for row in rows if row.kind == "task" and row.headline(protocol)]
    if tasks:
        best = tasks[-1]
        unit = " %" if protocol in best.gains else ""
        said.append(f"Best task by {protocol}: {best.name}, {number(best.headline(protocol))}{unit}.")
    for row in tasks if tasks and protocol in tasks[0].gains else ():
        if row.verdict(protocol) != "better than random":
            said.append(f"{row.name} is {row.verdict(protocol)} at this budget.")
    return said


def _track(study: Study, rows: list[Row], protocols: tuple[str, ...], tracking: Mode) -> None:
    tracker = Tracker(tracking, study.root, id=f"compare-{study.token}", study=study.root.name, job_type="compare",
                      name=f"compare/{study.root.name}", config=read_json(study.file))  # fmt: skip
    heads = {p: features.protocols()[p].headline for p in protocols}
    columns = ["task", "encoder", *(f"{p} {part}" for p in protocols for part in (heads[p], "low", "high"))]
    lines = []
    for row in rows:
        values = [v for p in protocols for v in (row.headline(p) or (None, None, None))]
        lines.append([row.name, row.judged.encoder, *values])
        tracker.summary({f"{row.name}/{p}": row.cells[p]["numbers"][heads[p]] for p in protocols if row.headline(p)})
    tracker.table("comparison", columns, lines)
    tracker.finish()
