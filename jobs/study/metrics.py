"""Reads and writes metrics.jsonl of a run: a row for every so many steps, and one for each restart."""

import contextlib
import json
import math
import time
from pathlib import Path

from ssl_core.errors import ObjectNotFound
from ssl_core.storage.async_writer import AsyncWriter
from ssl_core.storage.files import is_local, read_text, write_text

STORE_SECONDS = 10.0  # in an object store, where nothing can be appended to, all rows are put again: not more often


def read_rows(path: Path) -> list[dict]:
    """Returns all whole rows of a metrics.jsonl; those with "loss" are of training, those with "restart" of a
    restart."""
    found = []
    with contextlib.suppress(FileNotFoundError, ObjectNotFound):
        for line in read_text(path).splitlines():
            with contextlib.suppress(ValueError):  # still being written, or torn by a crash
                found.append(json.loads(line))
    return found


def training_rows(path: Path) -> list[dict]:
    """Returns the rows of training in a metrics.jsonl."""
    return [row for row in read_rows(path) if "loss" in row]


class MetricsFile:
    """Keeps the metrics.jsonl of a run that continues after a step; rows behind it are dropped, for they come again.

    Args:
        path: The file.
        first_step: The step of the checkpoint that the run continues from, or 0.
        writer: Writes in the background.
    """

    def __init__(self, path: Path, first_step: int, writer: AsyncWriter):
        self.path, self.writer = path, writer
        self.kept = [row for row in read_rows(path) if row.get("step", math.inf) <= first_step]
        self.written = -1  # how many are in the file; -1: it is not known, so all are written
        self.put_at = -math.inf

    @property
    def restarts(self) -> int:
        """Returns how often the run was restarted."""
        return sum("restart" in row for row in self.kept)

    def add(self, row: dict) -> None:
        """Adds a row, which is written soon."""
        self.kept.append(row)
        if is_local(self.path) or time.monotonic() - self.put_at > STORE_SECONDS:
            self.write()

    def write(self) -> None:
        """Writes all rows in the background, before what the writer is given next."""
        self.put_at = time.monotonic()
        self.writer.put("metrics", self._write)

    def _write(self) -> None:
        rows = list(self.kept)
        new_rows, known = rows[max(self.written, 0) :], self.written >= 0
        self.written = -1  # until this has gone well
        if known and is_local(self.path):
            with open(self.path, "a") as file:
                file.write(_lines(new_rows))
        else:
            write_text(self.path, _lines(rows))
        self.written = len(rows)


def _lines(rows: list[dict]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)
