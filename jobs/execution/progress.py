"""Shows progress: a bar for each pretraining, or lines now and then where there is no terminal, and a line for each
end."""

import contextlib
import math
import threading
import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from cluster.job import Retrying
from jobs.execution.forecast import RemainingTime, format_seconds
from jobs.study.folder import Study
from jobs.study.warning_log import log_files
from ssl_core.errors import StorageError
from ssl_core.storage.files import is_local, read_bytes
from ssl_core.storage.files import size as size_of
from ssl_core.storage.retry import short_deadline

POLL_SECONDS, STORE_POLL_SECONDS = 0.5, 5.0
NOTABLE = 0.05  # of the time spent waiting for data: from here on it is shown
# In a log, a run has a line after each tenth of its steps and each minute, but not more often than every few seconds
LINE_SHARE, LINE_SECONDS, LINE_LEAST_SECONDS = 0.1, 60, 5
FORECAST_SECONDS = 5.0  # after the first metrics: by then others that run at once have reported, too


class ProgressMonitor:
    """Shows how far runs are by the metrics that they report, wherever they are trained. Used as a context manager.

    Args:
        console: Where progress is shown.
        runs: The number of steps of each run.
        total: The number of jobs.
        study: The folder whose warnings are shown as they come, for jobs whose stderr is elsewhere; or None.
    """

    def __init__(self, console: Console, runs: dict[str, int], total: int, study: Path | None):
        self.runs, self.study = runs, study
        self.reported: dict[str, dict] = {}  # the last metrics of each run
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
        self.remaining, self.trainings = RemainingTime(), len(runs)
        self.forecast_at: float | None = None  # when the line about all trainings is due in a log
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "ProgressMonitor":
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

    def report(self, name: str, row: dict) -> None:
        """Notes the last row of metrics of a run, to be shown soon.

        Training may call it, so it waits for nothing, not even for a terminal that is full.
        """
        self.reported[name] = row

    def job_ended(self, name: str, line: str) -> None:
        """Removes the bar of a job that has ended, and prints `line` (rich markup) unless it is empty."""
        with self.lock:
            self.runs.pop(name, None)
            self.reported.pop(name, None)
            if name in self.bars:
                self.progress.remove_task(self.bars.pop(name))
            self.progress.advance(self.all)
        if line:
            self.progress.console.print(line, highlight=False, soft_wrap=True)

    def note(self, line: str) -> None:
        """Prints a line (rich markup) about a job that goes on."""
        self.progress.console.print(line, highlight=False, soft_wrap=True)

    def _follow(self) -> None:
        warned = time.monotonic()
        pause = POLL_SECONDS if self.study is None or is_local(self.study) else STORE_POLL_SECONDS
        while not self.stopped.wait(POLL_SECONDS):
            for name, row in list(self.reported.items()):
                with self.lock:
                    if name in self.runs:
                        self._show(name, row, self.runs[name])
            with self.lock:
                self._forecast()
            if time.monotonic() - warned >= pause:
                with contextlib.suppress(OSError, StorageError), short_deadline():  # a storage that fails for a while
                    self._warn()
                warned = time.monotonic()

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

    def _forecast(self) -> None:
        """Shows how long all trainings still take, where there are several: in their bar, or in a log once."""
        if not self.runs:  # what is left are evaluations
            self.progress.update(self.all, speed="")
            return
        seconds = self.remaining.estimate(self.runs, self.reported) if self.trainings > 1 else None
        if seconds is None:
            return
        left = f"about {format_seconds(seconds)} of training left"
        self.progress.update(self.all, speed=left)
        if self.forecast_at is None:
            self.forecast_at = time.monotonic() + FORECAST_SECONDS
        elif self.lines and time.monotonic() >= self.forecast_at:
            self.forecast_at = math.inf  # once is enough: each run's lines say how long it takes
            self.progress.console.print(f"{left}, by the speed of the first steps", highlight=False, soft_wrap=True)

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
    return f", {format_seconds(seconds)} left" if seconds > 0 else ""


def retry_line(event: Retrying, study: Study) -> str:
    """Returns the message for a job that is tried again, in rich's markup, and keeps its traceback in the study."""
    with contextlib.suppress(OSError, StorageError), short_deadline():
        study.failure(f"{event.name}-attempt{event.attempt - 1}", event.fault.text or event.fault.cause)
    wait = f" in {event.decision.wait:.0f} s" if event.decision.wait else ""
    return f"[yellow]again[/]     {escape(event.name)}: {escape(str(event.fault))}; attempt {event.attempt}{wait}"
