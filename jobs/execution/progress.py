"""Shows progress: a bar for each pretraining, or lines now and then where there is no terminal, and a line for each
end."""

import contextlib
import json
import math
import threading
import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from cluster.job import Retrying
from jobs.study.folder import Study
from jobs.study.warning_log import log_files
from ssl_core.errors import StorageError
from ssl_core.storage.files import is_local, read_bytes
from ssl_core.storage.files import size as size_of
from ssl_core.storage.retry import short_deadline

POLL_SECONDS, STORE_POLL_SECONDS = 0.5, 5.0
TAIL = 4000  # bytes at the end of a run's rows that are read for the last one
NOTABLE = 0.05  # of the time spent waiting for data: from here on it is shown
# In a log, a run has a line after each tenth of its steps and each minute, but not more often than every few seconds
LINE_SHARE, LINE_SECONDS, LINE_LEAST_SECONDS = 0.1, 60, 5


class ProgressMonitor:
    """Follows runs by their metrics.jsonl, wherever they are trained. Used as a context manager.

    Args:
        console: Where progress is shown.
        runs: For each run, its metrics.jsonl and its number of steps.
        total: The number of jobs.
        study: The folder whose warnings are shown as they come, for jobs whose stderr is elsewhere; or None.
    """

    def __init__(self, console: Console, runs: dict[str, tuple[Path, int]], total: int, study: Path | None):
        """`runs`: name -> (its metrics.jsonl, its steps); `total`: number of jobs; `study`: the folder whose warnings
        are shown as they come, for jobs whose stderr is elsewhere."""
        self.runs, self.study = runs, study
        self.local = all(is_local(path) for path, _ in runs.values()) and (study is None or is_local(study))
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self.lines = not console.is_interactive  # as in the log of a job on a cluster
        self.all = self.progress.add_task("all jobs", total=total, speed="")
        self.bars: dict[str, TaskID] = {}
        self.last_lines: dict[str, tuple[int, float]] = {}  # the step and time of each run's last line
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "ProgressMonitor":
        self.before = {name: size_of(path) for name, (path, _) in self.runs.items()}
        self.read = {path: size_of(path) for path in log_files(self.study)} if self.study else {}
        if not self.lines:
            self.progress.start()
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.stopped.set()
        self.thread.join()
        with contextlib.suppress(OSError, StorageError):
            self._warn()
        if not self.lines:
            self.progress.stop()

    def job_ended(self, name: str, line: str) -> None:
        """Removes the bar of a job that has ended, and prints `line` (rich markup) unless it is empty."""
        with self.lock:
            self.runs.pop(name, None)
            if name in self.bars:
                self.progress.remove_task(self.bars.pop(name))
            self.progress.advance(self.all)
        if line:
            self.progress.console.print(line, highlight=False, soft_wrap=True)

    def note(self, line: str) -> None:
        """Prints a line (rich markup) about a job that goes on."""
        self.progress.console.print(line, highlight=False, soft_wrap=True)

    def _follow(self) -> None:
        while not self.stopped.wait(POLL_SECONDS if self.local else STORE_POLL_SECONDS):
            with contextlib.suppress(OSError, StorageError), short_deadline():  # a storage that fails for a while
                self._poll()
                self._warn()

    def _poll(self) -> None:
        for name, (path, steps) in list(self.runs.items()):
            size = size_of(path)
            row = _last_row(path, size) if size != self.before[name] else None
            with self.lock:
                if row and name in self.runs:
                    self._show(name, row, steps)

    def _show(self, name: str, row: dict, steps: int) -> None:
        accuracy = f"  accuracy {row['accuracy']:.3f}" if "accuracy" in row else ""
        speed = f"loss {row['loss']:.3f}{accuracy}  {row['images_per_second']:,.0f} images/s"
        if row["waited"] >= NOTABLE:
            speed += f"  {row['waited']:.0%} of the time waiting for data"
        if self.lines:
            self._print_line(name, row, steps, speed)
            return
        if name not in self.bars:
            self.bars[name] = self.progress.add_task(name, total=steps, speed="")
        self.progress.update(self.bars[name], completed=row["step"], speed=speed)

    def _print_line(self, name: str, row: dict, steps: int, speed: str) -> None:
        """Prints a line for run `name`, if it is time for one."""
        step = row["step"]
        last, when = self.last_lines.get(name, (-steps, -math.inf))
        waited = time.monotonic() - when
        due = step - last >= LINE_SHARE * steps or (waited >= LINE_SECONDS and step != last)
        if due and waited >= LINE_LEAST_SECONDS:
            self.last_lines[name] = step, time.monotonic()
            line = f"{name}: step {step:,} of {steps:,}{_remaining(row, steps)}  {speed}"
            self.progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _warn(self) -> None:
        for path in log_files(self.study) if self.study else ():
            if size_of(path) > self.read.get(path, 0):
                new_lines = read_bytes(path)[self.read.get(path, 0) :]
                self.read[path] = self.read.get(path, 0) + len(new_lines)
                self.note(escape(new_lines.decode(errors="replace").rstrip()))


def _remaining(row: dict, steps: int) -> str:
    """Returns about how long a run still takes, by the speed of its last steps, or "" at its end."""
    seconds = (steps - row["step"]) * row["images"] / row["step"] / max(1e-9, row["images_per_second"])
    for unit, length, most in (("s", 1, 100), ("min", 60, 6000), ("h", 3600, 1e99)):
        if 0 < seconds < most:
            return f", {seconds / length:.2g} {unit} left"
    return ""


def _last_row(path: Path, size: int) -> dict | None:
    """Returns the last row of training, or None if there is none."""
    if is_local(path):
        with path.open("rb") as file:
            file.seek(max(0, size - TAIL))
            lines = file.read().splitlines()
    else:
        lines = read_bytes(path)[-TAIL:].splitlines()
    for line in reversed(lines):
        with contextlib.suppress(ValueError):  # still being written, or cut by the seek
            row = json.loads(line)
            if "loss" in row:
                return row
    return None


def retry_line(event: Retrying, study: Study) -> str:
    """Returns the message for a job that is tried again, in rich's markup, and keeps its traceback in the study."""
    with contextlib.suppress(OSError, StorageError), short_deadline():
        study.failure(f"{event.name}-attempt{event.attempt - 1}", event.fault.text or event.fault.cause)
    wait = f" in {event.decision.wait:.0f} s" if event.decision.wait else ""
    return f"[yellow]again[/]     {escape(event.name)}: {escape(str(event.fault))}; attempt {event.attempt}{wait}"
