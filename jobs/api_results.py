"""Defines what the functions of `jobs.api` return."""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.study.folder import Study as StudyFolder
from ssl_core.storage.files import read_text
from ssl_core.storage.records import EncoderRecord, EvaluationRecord

if TYPE_CHECKING:
    import pandas
    import torch


@dataclass(frozen=True)
class Run:
    """Is a finished pretraining run.

    Attributes:
        folder: Where it lies: config.json, metrics.jsonl, samples.png, encoder.safetensors, encoder.json.
    """

    folder: Path

    @property
    def record(self) -> EncoderRecord:
        """Returns what encoder.json says: the architecture, how it was trained, and what that cost."""
        return EncoderRecord.read(self.folder / "encoder.json")

    def metrics(self) -> list[dict[str, Any]]:
        """Returns the rows of metrics.jsonl: step, loss, accuracy where the task has one, learning rate, and more."""
        from jobs.study.metrics import training_rows

        return training_rows(self.folder / "metrics.jsonl")

    def encoder(self) -> "torch.nn.Module":
        """Returns the encoder, see `jobs.api.load_encoder`."""
        from ssl_core.encoders.pixel_encoder import load_pixel_encoder

        return load_pixel_encoder(str(self.folder))


@dataclass(frozen=True)
class Comparison:
    """Is a table of encoders by protocols, and the files that it comes with.

    Attributes:
        folder: Where results.csv and report.html lie.
    """

    folder: Path

    @property
    def report(self) -> Path:
        """Returns the path of report.html, one file without any request to other machines."""
        return self.folder / "report.html"

    def rows(self) -> list[dict[str, str]]:
        """Returns the rows of results.csv, a number each, with its 95 % interval."""
        import csv

        return list(csv.DictReader(io.StringIO(read_text(self.folder / "results.csv"))))

    def to_pandas(self) -> "pandas.DataFrame":
        """Returns the rows of results.csv as a data frame."""
        import pandas

        return pandas.read_csv(io.StringIO(read_text(self.folder / "results.csv")))


@dataclass(frozen=True)
class Study(Comparison):
    """Is a finished study: its runs and the comparison of their encoders."""

    def runs(self) -> list[Run]:
        """Returns the finished pretraining runs."""
        return [Run(folder) for folder in StudyFolder(self.folder).runs()]


@dataclass(frozen=True)
class Results(Mapping[str, EvaluationRecord]):
    """Holds what each protocol measured of one encoder, by the protocol's name.

    Attributes:
        records: The records, each with `numbers`, `chosen` and `notes`.
    """

    records: Mapping[str, EvaluationRecord] = field(default_factory=dict)

    def __getitem__(self, protocol: str) -> EvaluationRecord:
        return self.records[protocol]

    def __iter__(self) -> Iterator[str]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def to_pandas(self) -> "pandas.DataFrame":
        """Returns a data frame with a row for each number: protocol, metric, value."""
        import pandas

        rows = [(name, metric, value) for name, one in self.items() for metric, value in one.numbers.items()]
        return pandas.DataFrame(rows, columns=["protocol", "metric", "value"])
