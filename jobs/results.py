"""The numbers of a study, gathered from its cells: what the table, results.csv and the report show."""

import csv
import io
from dataclasses import dataclass

from jobs.brought import everything
from jobs.cells import PIXELS, RANDOM, Evaluation, Judged, cell_path, labels, unpacked, with_floors
from jobs.layout import Study
from ssl_core.errors import BadInput
from ssl_core.evaluators.intervals import paired, wilson
from ssl_core.files import exists, read_json

CEILING = "supervised"
COLUMNS = ("task", "encoder", "pretrain_run", "dataset", "protocol", "metric", "value", "low", "high", "seeds")


@dataclass(frozen=True)
class Row:
    """One encoder: its cells by protocol, how it compares with its floor, and for a run what it cost."""

    judged: Judged
    name: str  # for people: the task, with its hash where a study has several runs of it, or the floor
    cells: dict[str, dict]
    described: dict | None  # encoder.json of a run
    gains: dict[str, tuple[float, float, float]]  # protocol: (difference from the floor, low, high), paired

    @property
    def kind(self) -> str:
        if self.judged.task in (PIXELS, RANDOM):
            return "floor"
        if self.judged.brought:
            return "brought"
        return "ceiling" if self.judged.task == CEILING else "task"

    def top1(self, protocol: str) -> tuple[float, float, float] | None:
        """(accuracy, low, high), or None if this protocol has not been run."""
        cell = self.cells.get(protocol)
        return (cell["numbers"]["top1"], *wilson(unpacked(cell))) if cell else None

    def verdict(self, protocol: str) -> str:
        """What the gain over the floor allows to say."""
        if protocol not in self.gains:
            return ""
        _, low, high = self.gains[protocol]
        return "better than random" if low > 0 else "worse than random" if high < 0 else "within noise of random"


def gather(study: Study) -> tuple[list[Row], Evaluation]:
    """The rows of a study: floors, then tasks by their linear accuracy, the ceiling, and encoders from elsewhere.

    Raises BadInput if it was never evaluated.
    """
    evaluation = Evaluation.told(study)
    if evaluation is None:
        raise BadInput(f"{study.root}: not evaluated yet; run: tilespin evaluate {study.root}")
    described = {d["run"]: d for d in (read_json(run / "encoder.json") for run in study.runs())}
    found: dict[Judged, dict[str, dict]] = {}
    for one in with_floors(everything(study)):
        dataset = one.source.digest
        paths = {name: cell_path(study, one, name, evaluation, dataset) for name in evaluation.protocols}
        found[one] = {name: read_json(path) for name, path in paths.items() if path and exists(path)}
    rows, names = [], labels(list(found))
    for one, cells in found.items():
        trained = bool(one.run or one.brought)
        floor = found.get(one.floor(one.normalisation), {})
        pairs = {name: (cell, floor.get(name)) for name, cell in cells.items() if trained}
        gains = {name: paired(unpacked(cell), unpacked(base)) for name, (cell, base) in pairs.items() if base}
        alone = sum(other.task == one.task for other in found) == 1
        name = one.task if trained and alone else names[one]
        rows.append(Row(one, name, cells, described.get(one.run), gains))
    first = evaluation.protocols[0]
    order = {"floor": 0, "task": 1, "ceiling": 2, "brought": 3}
    rows.sort(key=lambda row: (order[row.kind], (row.top1(first) or (0.0,))[0]))
    return rows, evaluation


def as_csv(rows: list[Row]) -> str:
    """results.csv: one row a number. Accuracies are fractions; intervals are 95 %, of top1 and of the gain."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(COLUMNS)
    for row in rows:
        for protocol, cell in row.cells.items():
            task = row.judged.task if row.judged.run else row.name
            head = [task, row.judged.encoder, row.judged.run or "", cell["dataset"], protocol]
            for metric, value in sorted(cell["numbers"].items()):
                interval = wilson(unpacked(cell)) if metric == "top1" else ("", "")
                table.writerow([*head, metric, value, *interval, 1])
            if protocol in row.gains:
                table.writerow([*head, "top1/gain-over-random-init", *row.gains[protocol], 1])
    return out.getvalue()
