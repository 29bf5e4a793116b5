"""Publishes a comparison: results.csv, report.html, the terminal, and a summary run in W&B."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

from rich.console import Console

from jobs.report import wandb_report
from jobs.report.caveats import caveats_of
from jobs.report.collect import collect
from jobs.report.comparison import DatasetComparison, EncoderRow, by_dataset, protocols_of
from jobs.report.conclusions import GAIN, conclusions, split_by_kind
from jobs.report.course import course_conclusions
from jobs.report.html import write_report
from jobs.report.over_datasets import over_datasets, over_datasets_csv, over_datasets_table
from jobs.report.predictors import predictor_conclusions, predictors, predictors_csv
from jobs.report.results_csv import as_csv
from jobs.report.terminal import accuracy_table, diagnostics_table
from jobs.study.folder import JobsFailed, Study
from jobs.study.warning_log import warn
from jobs.tracking.connection import DecidedMode
from jobs.tracking.tracker import Tracker, print_sync_command
from ssl_core.errors import UserError
from ssl_core.evaluation.protocol import protocols
from ssl_core.storage.files import exists, read_text, write_text


@contextmanager
def published_after(study: Study, tracking: DecidedMode) -> Iterator[None]:
    """Shows the comparison after the block, also if jobs of it have failed: then of what there is."""
    try:
        yield
    except JobsFailed:
        try:
            publish(study, tracking)
        except UserError as error:  # there is nothing, which must not hide why
            warn(study.root, str(error))
        raise
    publish(study, tracking)


def publish(study: Study, tracking: DecidedMode) -> None:
    """Writes and prints the comparison of a study. Raises UserError if nothing has been evaluated."""
    publish_rows(study, collect(study), tracking)


def publish_rows(study: Study, rows: list[EncoderRow], tracking: DecidedMode) -> None:
    """Writes and prints a comparison of these rows.

    If numbers are new, it writes report.html, the summary run in W&B, and last results.csv, which says that the
    others are up to date. Then it prints the table: whoever reads that may stop at any line.

    Args:
        study: The study that keeps the files.
        rows: What is compared.
        tracking: How the summary is tracked in W&B.

    Raises:
        UserError: If there is no result.
    """
    parts = by_dataset(rows)
    if not parts:
        raise UserError(f"{study.root}: there is no result to compare yet; run: tilespin evaluate {study.root}")
    summary, limits, saved = over_datasets(parts), tuple(line for part in parts for line in caveats_of(part)), None
    numbers = as_csv(parts) + (over_datasets_csv(summary) if summary else "")
    known, found = study.read().caveats, {part.dataset: predictors(part) for part in parts}
    if not (exists(study.results) and exists(study.report) and read_text(study.results) == numbers and limits == known):
        write_report(study, parts, found, summary)
        if any(found.values()):
            write_text(study.root / "label-free.csv", predictors_csv(found))
        saved = _track_comparison(study, parts, tracking)
        if limits != known:
            study.describe(caveats=limits)
        write_text(study.results, numbers)
    console = Console()

    def say(*lines: str) -> None:
        for line in lines:
            console.print(line, highlight=False, markup=False, soft_wrap=True)

    for part in parts:
        accuracies, others = split_by_kind(part.protocols)
        more = (*course_conclusions(part), *predictor_conclusions(found[part.dataset]))
        say(*([f"\n{part.dataset}:"] if len(parts) > 1 else []), *conclusions(part), *more, *caveats_of(part))
        if accuracies:
            console.print(accuracy_table(part, accuracies))
        if others:
            console.print(diagnostics_table(part, others))
        say(GAIN)
    if summary:
        console.print(over_datasets_table(summary))
        say(*summary.left_out)
    if saved:
        print(f"W&B report: {saved}")
    print(f"report: {study.report}\nnumbers: {study.results}")
    print_sync_command(study)


def _track_comparison(study: Study, parts: list[DatasetComparison], tracking: DecidedMode) -> str | None:
    """Makes a run in W&B with the table, every pair of tasks, and a summary value to sort by for each encoder and
    measure.

    Returns:
        The URL of the report that W&B has of them, or None.
    """
    tracker = Tracker(
        tracking,
        study.root,
        id=f"compare-{study.token}",
        study=study.root.name,
        job_type="compare",
        name=f"compare/{study.root.name}",
        config=asdict(study.read()),
    )
    rows = [row for part in parts for row in part.rows]
    names = protocols_of(rows)
    heads = {p: protocols()[p].headline for p in names}
    columns = [
        "task",
        "encoder",
        "dataset",
        "seeds",
        "images",
        "TMACs",
        "seconds",
        *(f"{p} {part}" for p in names for part in (heads[p], "low", "high")),
    ]
    lines = []
    found = [
        [
            protocol,
            pair.better.name,
            pair.worse.name,
            pair.difference.mean,
            *pair.difference.ends,
            pair.adjusted,
            pair.verdict,
        ]
        for part in parts
        for protocol, of in part.pairs.items()
        for pair in of
    ]
    for row in rows:
        values = [v for p in names for v in (row.headline(p) or (None, None, None))]
        macs = row.cost("macs")
        lines.append(
            [
                row.name,
                row.one.encoder,
                row.dataset,
                len(row.encoders),
                row.cost("images"),
                macs and macs / 1e12,
                row.cost("seconds"),
                *values,
            ]
        )
        tracker.summary({f"{row.name}/{p}": row.mean_value(p, row.main_measure(p)) for p in names if row.headline(p)})
    tracker.table("comparison", columns, lines)
    if found:
        tracker.table(
            "pairs", ["protocol", "better", "worse", "difference", "low", "high", "p (Holm)", "verdict"], found
        )
    entity_and_project = tracker.entity_and_project()
    tracker.finish()
    if entity_and_project:
        try:
            return wandb_report.save(study, parts, *entity_and_project)
        except Exception as error:  # whatever its client or server has against it: the comparison is there
            warn(study.root, f"no report in W&B: {error}")
    return None
