"""Writes results.csv: every number of a comparison, with its interval."""

import csv
import io
from collections import defaultdict

from jobs.report.comparison import DatasetComparison, Pair

COLUMNS = ("task", "encoder", "pretrain_run", "steps", "dataset", "protocol", "metric", "value", "low", "high", "seeds")


def as_csv(parts: list[DatasetComparison]) -> str:
    """Returns results.csv: one row a number, which is a mean over seeds. Accuracies are fractions.

    Encoders that were kept before their last step have rows of their own, which `steps` tells apart.

    Intervals are 95 %: of accuracies, of the gain over the baseline and of the difference from each task that is
    worse.
    """
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(COLUMNS)
    over: dict[tuple[str, str, str], list[Pair]] = defaultdict(list)
    for part in parts:
        for protocol, pair in ((name, pair) for name, of in part.pairs.items() for pair in of):
            over[part.dataset, pair.better.name, protocol].append(pair)
    everyone = ((part.dataset, row) for part in parts for last in part.rows for row in (*last.earlier, last))
    for dataset, row in everyone:
        steps = " ".join(str(count) for count in dict.fromkeys(one.steps for one in row.trainings))
        runs = " ".join(one.run for one in row.encoders if one.run)
        for protocol in row.records:
            head = [row.one.task if runs else row.name, row.one.encoder, runs, steps, dataset, protocol]

            def write(metric: str, *values, head=head, row=row) -> None:
                table.writerow([*head, metric, *values, len(row.encoders)])

            name, shown = row.main_measure(protocol), row.headline(protocol)
            for metric, value in row.mean_values(protocol).items():
                low_high = shown[1:] if shown and metric == name and shown[1] is not None else ("", "")
                write(metric, value, *low_high)
            if gain := row.gains.get(protocol):
                write(f"{name}/gain-over-random-init", gain.mean, gain.low, gain.high)
            if protocol == "linear" and (gap := row.gap):
                write(f"{name}/over-knn", gap.mean, gap.low, gap.high)
            for pair in over[dataset, row.name, protocol]:
                write(f"{name}/over/{pair.worse.name}", pair.difference.mean, pair.difference.low, pair.difference.high)
                write(f"{name}/over/{pair.worse.name}/p", pair.adjusted, "", "")
    return out.getvalue()
