"""metrics.jsonl of a run: a row for every so many steps, and one for each time that it was restarted."""

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
    """All whole rows of a metrics.jsonl; those with "loss" are of training, those with "restart" tell of one."""
    found = []
    with contextlib.suppress(FileNotFoundError, ObjectNotFound):
        for line in read_text(path).splitlines():
            with contextlib.suppress(ValueError):  # still being written, or torn by a crash
                found.append(json.loads(line))
    return found


def training_rows(path: Path) -> list[dict]:
    return [row for row in read_rows(path) if "loss" in row]


class MetricsFile:
    """Keeps the file of a run that continues after step `first_step`: what lies behind that is taken again."""

    def __init__(self, path: Path, first_step: int, writer: AsyncWriter):
        self.path, self.writer = path, writer
        self.kept = [row for row in read_rows(path) if row.get("step", math.inf) <= first_step]
        self.written = -1  # how many are in the file; -1: it is not known, so all are written
        self.put_at = -math.inf

    @property
    def restarts(self) -> int:
        return sum("restart" in row for row in self.kept)

    def add(self, row: dict) -> None:
        """Writes it soon."""
        self.kept.append(row)
        if is_local(self.path) or time.monotonic() - self.put_at > STORE_SECONDS:
            self.write()

    def write(self) -> None:
        """Has all rows written before what is put behind next."""
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
