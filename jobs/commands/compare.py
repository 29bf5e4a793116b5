"""`tilespin compare STUDY ...`: which task learned the best representation, in the terminal, a report and W&B."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated

import tyro
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import jobs.report.wandb_report as webreport
from jobs.config.parsing import parse
from jobs.report.caveats import caveats, over
from jobs.report.collect import gather
from jobs.report.comparison import Part, Row, as_csv, by_dataset, measured
from jobs.report.conclusions import by_kind, conclusions, difference, number
from jobs.report.html import write_report
from jobs.study.folder import JobsFailed, Study
from jobs.study.warning_log import warn
from jobs.tracking.connection import Mode, decide
from jobs.tracking.tracker import Tracker, say_sync
from ssl_core.errors import BadInput
from ssl_core.evaluation import features
from ssl_core.storage.files import exists, read_json, read_text, write_text


@dataclass(frozen=True, kw_only=True)
class Options:
    """Compare the encoders of a study, or of several: table, results.csv, report.html, and a summary run in W&B."""

    studies: Annotated[tuple[str, ...], tyro.conf.Positional]
    """folders of studies, such as runs/demo"""
    name: str = "comparison"
    """of the folder beside the first study that gets the report, if there are several"""
    tracking: Mode = "auto"
    """Weights & Biases; auto: online if you are logged in, else offline"""

    def check(self) -> None:
        """Raises BadInput for no study, or the same one twice."""
        if not self.studies or len(set(self.studies)) < len(self.studies):
            raise BadInput("compare: expected folders of studies, each once, such as runs/demo")


def main(arguments: list[str]) -> None:
    options = parse(Options, "compare", arguments)
    options.check()
    studies, tracking = [Study.existing(folder) for folder in options.studies], decide(options.tracking)
    if len(studies) == 1:
        with studies[0].held():
            show(studies[0], tracking)
        return
    together = Study.at(str(studies[0].root.parent), options.name)
    if together.root in [study.root for study in studies] or exists(together.root / "pretrain"):
        raise BadInput(f"--name {options.name}: {together.root} is a study, the comparison needs a folder of its own")
    rows = [replace(row, name=f"{study.root.name}/{row.name}") for study in studies for row in gather(study)]
    with together.held():
        together.describe(compared=[str(study.root) for study in studies])
        _show(together, rows, tracking)


@contextmanager
def shown(study: Study, tracking: Mode) -> Iterator[None]:
    """Shows the comparison after the block, also if jobs of it have failed: of what there is."""
    try:
        yield
    except JobsFailed:
        try:
            show(study, tracking)
        except BadInput as error:  # there is nothing, which must not hide why
            warn(study.root, str(error))
        raise
    show(study, tracking)


def show(study: Study, tracking: Mode) -> None:
    """Where numbers are new, writes report.html, the summary run in W&B, and last results.csv, which says that the
    others are up to date. Then prints the table: whoever reads that may leave at any line.

    Raises BadInput if nothing has been evaluated."""
    _show(study, gather(study), tracking)


def _show(study: Study, rows: list[Row], tracking: Mode) -> None:
    parts = by_dataset(rows)
    if not parts:
        raise BadInput(f"{study.root}: there is no result to compare yet; run: tilespin evaluate {study.root}")
    numbers, limits, saved = as_csv(parts), [line for part in parts for line in caveats(part)], None
    known = read_json(study.file).get("caveats", [])
    if not (exists(study.results) and exists(study.report) and read_text(study.results) == numbers and limits == known):
        write_report(study, parts)
        saved = _track(study, parts, tracking)
        if limits != known:
            study.describe(caveats=limits)
        write_text(study.results, numbers)
    console = Console()
    for part in parts:
        accuracies, others = by_kind(part.protocols)
        if accuracies:
            console.print(table(part, accuracies))
        if others:
            console.print(diagnostics(part, others))
        for line in (*conclusions(part), *caveats(part)):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    if saved:
        print(f"W&B report: {saved}")
    print(f"report: {study.report}\nnumbers: {study.results}")
    say_sync(study)


def table(part: Part, protocols: tuple[str, ...]) -> Table:
    """The comparison for the terminal, in percent; 95 % intervals behind ±."""
    title = f"{part.dataset}: test images, frozen encoder, top-1 in %; 95 % intervals"
    title += f", {part.seeds} seeds" if part.seeds > 1 else ""
    title += f", {over(part)}" if over(part) else ""
    view = Table(title=escape(title), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    view.add_column("task", no_wrap=True)
    # where room is short, an interval goes below its number
    for name in (protocols[0], "gain", *protocols[1:], "images", "TMACs", "s"):
        view.add_column(name, justify="right", overflow="fold")
    kind = None
    for row in part.rows:
        if kind not in (None, row.kind):
            view.add_section()
        kind = row.kind
        first, *others = (number(row, protocol) for protocol in protocols)
        gain, images = row.gains.get(protocols[0]), row.cost("images")
        cost = ("", "", "")
        if images is not None:
            cost = (f"{images / 1000:,.0f}k" if images >= 10_000 else f"{images:,.0f}",
                    f"{(row.cost('macs') or 0) / 1e12:.2f}", f"{row.cost('seconds'):.0f}")  # fmt: skip
        view.add_row(escape(row.name), first, difference(gain.mean, *gain.ends) if gain else "", *others, *cost)
    return view


def diagnostics(part: Part, protocols: tuple[str, ...]) -> Table:
    """The headlines of protocols that are no accuracies, with an arrow to where better is."""
    title = "diagnostics of the frozen encoder" + (f", {over(part)}" if over(part) else "")
    view = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    view.add_column("task", no_wrap=True)
    for name in protocols:
        module = features.protocols()[name]
        measure = re.sub(r"(?=[@/])", "\n", module.headline, count=1)
        view.add_column(f"{name}\n{measure} {'↑' if module.higher else '↓'}", justify="right", overflow="fold")
    view.add_column("linear\n- knn ↓", justify="right")
    for row in part.rows:
        gap = row.gap
        view.add_row(escape(row.name), *(number(row, protocol) for protocol in protocols),
                     difference(gap.mean, *gap.ends) if gap else "")  # fmt: skip
    return view


def _track(study: Study, parts: list[Part], tracking: Mode) -> str | None:
    """A run with the table, every pair of tasks, and for each encoder and measure a summary value to sort by -> the URL
    of the report that W&B has of them, if it has one."""
    tracker = Tracker(tracking, study.root, id=f"compare-{study.token}", study=study.root.name, job_type="compare",
                      name=f"compare/{study.root.name}", config=read_json(study.file))  # fmt: skip
    rows = [row for part in parts for row in part.rows]
    protocols = measured(rows)
    heads = {p: features.protocols()[p].headline for p in protocols}
    columns = ["task", "encoder", "dataset", "seeds", "images", "TMACs", "seconds",
               *(f"{p} {part}" for p in protocols for part in (heads[p], "low", "high"))]  # fmt: skip
    lines = []
    found = [[protocol, pair.better.name, pair.worse.name, pair.difference.mean, *pair.difference.ends, pair.adjusted,
              pair.told] for part in parts for protocol, of in part.pairs.items() for pair in of]  # fmt: skip
    for row in rows:
        values = [v for p in protocols for v in (row.headline(p) or (None, None, None))]
        macs = row.cost("macs")
        lines.append([row.name, row.one.encoder, row.dataset, len(row.judged), row.cost("images"), macs and macs / 1e12,
                      row.cost("seconds"), *values])  # fmt: skip
        tracker.summary({f"{row.name}/{p}": row.number(p, heads[p]) for p in protocols if row.headline(p)})
    tracker.table("comparison", columns, lines)
    if found:
        tracker.table("pairs", ["protocol", "better", "worse", "difference", "low", "high", "p (Holm)", "told"], found)
    place = tracker.place()
    tracker.finish()
    if place:
        try:
            return webreport.save(study, parts, *place)
        except Exception as error:  # whatever its client or server has against it: the comparison is there
            warn(study.root, f"no report in W&B: {error}")
    return None
