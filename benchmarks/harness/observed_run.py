"""A training seen from outside: its command is typed, its rows are read as they come, and what a fault cost it."""

import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import processes

ROOT = Path(__file__).parents[2]
LOOK = 0.05  # seconds between two looks: how exactly moments are known
PATIENCE = 300.0  # seconds until a training that does nothing is given up
TAIL = 16 << 10  # bytes at the end of metrics.jsonl, some tens of rows


class Watched:
    """One `tilespin pretrain`, typed as often as it takes. Moments are of time.time(), which all processes share."""

    def __init__(self, arguments: list[str], folder: Path, environment: dict[str, str]):
        self.arguments, self.folder, self.environment = arguments, folder, environment
        self.marks, self.log = folder / "marks", folder / "said"
        self.furthest = 0  # the last step of all attempts
        self.rows: list[dict] = []  # of the end of the file, at the last look
        self.process: subprocess.Popen | None = None

    def type(self) -> float:
        """Starts the command; -> when."""
        self.marks.unlink(missing_ok=True)
        command = [sys.executable, "-m", "benchmarks.harness.per_step_rows", str(self.marks), *self.arguments]
        environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "RAY_ADDRESS": "", **self.environment}
        now = time.time()
        with open(self.log, "a") as out:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT)
        return now

    def end(self) -> None:
        if self.process and self.process.poll() is None:
            processes.kill(self.process.pid)
            self.process.wait()

    def look(self) -> int:
        """-> the last step of the attempt that runs, 0 before the first."""
        if path := self._path():
            with open(path, "rb") as file:
                file.seek(max(0, path.stat().st_size - TAIL))
                lines = file.read().split(b"\n")[1 if file.tell() > TAIL else 0 : -1]
            self.rows = [json.loads(line) for line in lines]
        steps = [row["step"] for row in self.rows if "loss" in row]
        self.furthest = max(self.furthest, steps[-1] if steps else 0)
        return steps[-1] if steps else 0

    def restarts(self) -> int:
        """How often it was restarted; the rows that say so are among the last ones only for a while."""
        path = self._path()
        return path.read_text().count('"restart"') if path else 0

    def step_seconds(self) -> float:
        """The median of the last steps."""
        steps = [row for row in self.rows if "loss" in row]
        pairs = [(a, b) for a, b in itertools.pairwise(steps) if b["step"] == a["step"] + 1]
        return statistics.median(b["seconds"] - a["seconds"] for a, b in pairs)

    def _path(self) -> Path | None:
        return next(iter(self.folder.glob("*/pretrain/*/metrics.jsonl")), None)

    def until(self, what: Callable[[], object]) -> float:
        """Looks until `what()`; -> when that was. Raises RuntimeError, with the driver's last words, if it does not
        come to it, or if the driver ended."""
        begun = time.monotonic()
        while True:
            self.look()
            if what():
                return time.time()
            if time.monotonic() - begun > PATIENCE or (self.process and self.process.poll() is not None):
                raise RuntimeError(f"the training came no further:\n{self.log.read_text()[-3000:]}")
            time.sleep(LOOK)

    def parts(self, typed: float, first: float) -> dict[str, float]:
        """Seconds of each part of a start, from the command to its first step."""
        marks = dict(json.loads(line) for line in self.marks.read_text().splitlines())
        (config,) = self.folder.glob("*/pretrain/*/config.json")  # rank 0 writes it when all workers are ready
        moments = {
            "imports": marks["imported"],
            "checks of the command": marks["checked"],
            "Ray": marks["ray"],
            "workers": config.stat().st_mtime,
            "first step": first,
        }
        found, last = {}, typed
        for name, moment in moments.items():
            found[name], last = moment - last, moment
        return found

    def again(self) -> int:
        """How many faults the driver has told of."""
        return sum(line.startswith("again") for line in self.log.read_text().splitlines())


def cost(run: Watched, fault: Callable[[], object], retype: bool) -> dict[str, float]:
    """What a fault costs. Seconds since the fault until it was "noticed" by the driver, or the driver had ended; until
    the first step after it ("resumed"); until the first that was not taken before ("recovered"); and the steps in
    between, which were "lost". `retype`: the fault ends the driver, and the command is typed again."""
    run.look()
    reached, starts, noted = run.furthest, run.restarts(), run.again()
    begun = time.time()
    fault()
    if retype:
        assert run.process
        run.process.wait(PATIENCE)
        noticed = time.time()
        run.look()
        run.type()
    else:
        noticed = run.until(lambda: run.again() > noted)
    start: dict = {}

    def resumed() -> bool:
        nonlocal reached
        if run.restarts() == starts:
            reached = run.furthest  # steps of workers that had not heard yet
            return False
        start.update(next((row for row in reversed(run.rows) if "restart" in row), {}))
        # not found yet if the restart was written after the rows were read
        return bool(start) and "loss" in run.rows[-1] and run.rows[-1]["step"] > start["step"]

    moments = {
        "noticed": noticed,
        "resumed": run.until(resumed),
        "recovered": run.until(lambda: run.rows[-1].get("step", 0) > reached),
    }
    return {name: moment - begun for name, moment in moments.items()} | {"lost": reached - start["step"]}
