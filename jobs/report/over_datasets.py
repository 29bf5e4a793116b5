"""Summarizes a comparison over the datasets that encoders were evaluated on, and names those that are left out."""

import csv
import io
from dataclasses import dataclass

import numpy as np
from rich import box
from rich.markup import escape
from rich.table import Table

from jobs.report.comparison import DatasetComparison, EncoderRow
from jobs.report.results_csv import COLUMNS
from ssl_core.evaluation.over_datasets import Summary, mean_gains, mean_ranks


@dataclass(frozen=True)
class OverDatasets:
    """Compares, over several datasets and by one protocol, the encoders that have answers on all of them.

    Attributes:
        protocol: The protocol.
        datasets: Names of the datasets.
        names: Names of the encoders, the best mean rank first.
        ranks: Mean rank of each.
        gains: Mean gain of each over its random initialization.
        left_out: Encoders that have no answers on a dataset, and datasets without answers, in sentences.
    """

    protocol: str
    datasets: tuple[str, ...]
    names: tuple[str, ...]
    ranks: tuple[Summary, ...]
    gains: tuple[Summary, ...]
    left_out: tuple[str, ...]


def over_datasets(parts: list[DatasetComparison]) -> OverDatasets | None:
    """Returns the summary by the first accuracy that two datasets have; None if there is none.

    Tasks, starts and references are ranked; baselines are what gains are over.
    """
    measured = {
        name: [part for part in parts if name in part.protocols and part.main_measure(name) == "top1"]
        for name in dict.fromkeys(name for part in parts for name in part.protocols)
    }
    protocol = next((name for name, of in measured.items() if len(of) > 1), None)
    if protocol is None:
        return None
    taken = measured[protocol]
    left_out = [_why_left_out(part, protocol) for part in parts if part not in taken]
    answers = [{row.name: found for row in part.rows if (found := _answers(row, protocol))} for part in taken]
    names = [name for name in answers[0] if all(name in of for of in answers)]
    for part, of in zip(taken, answers):
        missing = [name for other in answers for name in other if name not in of]
        left_out += [f"{name} has no {protocol} of {part.dataset}." for name in dict.fromkeys(missing)]
    if len(names) < 2 or len({of[name][0].shape[0] for of in answers for name in names}) > 1:
        return None
    correct = [np.stack([of[name][0] for name in names]) for of in answers]
    base = [np.stack([of[name][1] for name in names]) for of in answers]
    ranks, gains = mean_ranks(correct), mean_gains(correct, base)
    order = sorted(range(len(names)), key=lambda i: ranks[i].mean)
    return OverDatasets(
        protocol,
        tuple(part.dataset for part in taken),
        tuple(names[i] for i in order),
        tuple(ranks[i] for i in order),
        tuple(gains[i] for i in order),
        tuple(left_out),
    )


def _why_left_out(part: DatasetComparison, protocol: str) -> str:
    """Returns why a dataset has no answers to compare encoders by, in a sentence."""
    if protocol in part.protocols:
        return f"{part.dataset} has several labels an image, and no answers that are right or wrong."
    return f"{part.dataset} has no {protocol}."


def _answers(row: EncoderRow, protocol: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns whether a row's answers and its baseline's are right, [seeds, images] bool each."""
    mine, base = row.correct(protocol), row.baseline_correct(protocol)
    return None if mine is None or base is None or mine.shape != base.shape else (mine, base)


def conclusion_over_datasets(one: OverDatasets) -> str:
    """Says in a sentence which encoder has the best mean rank, and how much it gains."""
    rank, gain = one.ranks[0], one.gains[0]
    return (
        f"Best mean rank by {one.protocol} over {len(one.datasets)} datasets: {one.names[0]}, {rank.mean:.2f} "
        f"({rank.low:.2f} to {rank.high:.2f}); over the same encoder at random initialization, "
        f"{100 * gain.mean:+.1f} points ({100 * gain.low:+.1f} to {100 * gain.high:+.1f}) on average."
    )


def over_datasets_csv(one: OverDatasets) -> str:
    """Returns rows for results.csv: the mean rank and the mean gain of each encoder, with their intervals."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    for name, rank, gain in zip(one.names, one.ranks, one.gains):
        for metric, found in (("mean-rank", rank), ("mean-gain-over-random-init", gain)):
            values = dict(task=name, dataset=f"{len(one.datasets)} datasets", protocol=one.protocol, metric=metric)
            values |= dict(value=found.mean, low=found.low, high=found.high)
            table.writerow([values.get(column, "") for column in COLUMNS])
    return out.getvalue()


def over_datasets_table(one: OverDatasets) -> Table:
    """Returns the summary as a table for the terminal."""
    title = f"mean over {len(one.datasets)} datasets by {one.protocol}: {', '.join(one.datasets)}; 95 % intervals"
    view = Table(title=escape(title), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    view.add_column("task", overflow="fold")
    view.add_column("mean rank ↓", justify="right")
    view.add_column("mean gain", justify="right")
    for name, rank, gain in zip(one.names, one.ranks, one.gains):
        view.add_row(
            escape(name),
            f"{rank.mean:.2f} [{rank.low:.2f}, {rank.high:.2f}]",
            f"{100 * gain.mean:+.1f} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]",
        )
    return view
