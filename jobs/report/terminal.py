"""Shows the comparison as tables in the terminal."""

import re

from rich import box
from rich.markup import escape
from rich.table import Table

from jobs.report.caveats import share_of_classes
from jobs.report.comparison import DatasetComparison, EncoderRow
from jobs.report.conclusions import format_difference, format_number
from ssl_core.evaluation.protocol import protocols

MAX_NAME_WIDTH = 36  # characters; longer names take several lines, and numbers do not


def accuracy_table(part: DatasetComparison, protocols: tuple[str, ...]) -> Table:
    """Returns the table of accuracies, in percent, with 95 % intervals behind ±."""
    title = f"{part.dataset}: test images, frozen encoder, {part.accuracy_name} in %; 95 % intervals"
    title += f", {part.seeds} seeds" if part.seeds > 1 else ""
    title += f", {share_of_classes(part)}" if share_of_classes(part) else ""
    view = Table(title=escape(title), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    view.add_column("task", max_width=MAX_NAME_WIDTH, overflow="fold")
    # where room is short, an interval goes below its number
    balanced = {row.name: row.mean_value(protocols[0], "top1/balanced") for row in part.rows}
    unequal = any(_differs(row, balanced[row.name], protocols[0]) for row in part.rows)  # else it is the same again
    for name in (protocols[0], *(["balanced"] if unequal else []), "gain", *protocols[1:], "images", "TMACs", "s"):
        view.add_column(name, justify="right", overflow="fold")
    kind = None
    for row in part.rows:
        if kind not in (None, row.kind):
            view.add_section()
        kind = row.kind
        first, *others = (format_number(row, protocol) for protocol in protocols)
        gain, images = row.gains.get(protocols[0]), row.cost("images")
        cost = ("", "", "")
        if images is not None:
            cost = (
                f"{images / 1000:,.0f}k" if images >= 10_000 else f"{images:,.0f}",
                f"{(row.cost('macs') or 0) / 1e12:.2f}",
                f"{row.cost('seconds'):.0f}",
            )
        shown = balanced[row.name]
        second = [] if not unequal else ["" if shown is None else f"{100 * shown:.1f}"]
        over = format_difference(gain.mean, *gain.ends) if gain else ""
        view.add_row(escape(row.name), first, *second, over, *others, *cost)
    return view


def _differs(row: EncoderRow, balanced: float | None, protocol: str) -> bool:
    """Returns whether a balanced accuracy is visibly another than the accuracy."""
    value = row.mean_value(protocol, "top1")
    return balanced is not None and value is not None and abs(balanced - value) >= 5e-4


def diagnostics_table(part: DatasetComparison, names: tuple[str, ...]) -> Table:
    """Returns the table of protocols that measure no accuracy, with an arrow to where better is."""
    title = "diagnostics of the frozen encoder" + (f", {share_of_classes(part)}" if share_of_classes(part) else "")
    view = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    view.add_column("task", max_width=MAX_NAME_WIDTH, overflow="fold")
    for name in names:
        protocol = protocols()[name]
        measure = re.sub(r"(?=[@/])", "\n", protocol.headline, count=1)
        arrow = "↑" if protocol.higher_is_better else "↓"
        heading = name.replace("_", "_\n")  # semantic_similarity would need the room of two columns
        view.add_column(f"{heading}\n{measure} {arrow}", justify="right", overflow="fold")
    view.add_column("linear\n- knn ↓", justify="right")
    for row in part.rows:
        gap = row.gap
        view.add_row(
            escape(row.name),
            *(format_number(row, name) for name in names),
            format_difference(gap.mean, *gap.ends) if gap else "",
        )
    return view
