"""What is going on, on the terminal: a bar for each pretraining under way, a line for each job that ended."""

import json
import threading
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

POLL_SECONDS = 0.5
NOTABLE = 0.05  # of the time spent waiting for data: from here on it is shown


class Watch:
    """Follows runs by their metrics.jsonl, wherever they are trained. Use as a context manager."""

    def __init__(self, console: Console, runs: dict[str, tuple[Path, int]], total: int, warnings: Path | None):
        """`runs`: name -> (its metrics.jsonl, its steps); `total`: number of jobs; `warnings`: a log whose new
        lines are shown, for jobs whose stderr is elsewhere."""
        self.runs, self.warnings = runs, warnings
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(), console=console, transient=True,
        )  # fmt: skip
        self.all = self.progress.add_task("all jobs", total=total, speed="")
        self.bars: dict[str, TaskID] = {}
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "Watch":
        self.before = {name: _size(path) for name, (path, _) in self.runs.items()}
        self.read = _size(self.warnings) if self.warnings else 0
        self.progress.start()
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.stopped.set()
        self.thread.join()
        self._warn()
        self.progress.stop()

    def ended(self, name: str, line: str) -> None:
        """Job `name` ended: its bar goes, and `line` (rich markup) stays."""
        with self.lock:
            self.runs.pop(name, None)
            if name in self.bars:
                self.progress.remove_task(self.bars.pop(name))
            self.progress.advance(self.all)
        if line:
            self.progress.console.print(line, highlight=False, soft_wrap=True)

    def _follow(self) -> None:
        while not self.stopped.wait(POLL_SECONDS):
            with self.lock:
                for name, (path, steps) in self.runs.items():
                    row = _last_row(path) if _size(path) != self.before[name] else None
                    if row:
                        self._show(name, row, steps)
            self._warn()

    def _show(self, name: str, row: dict, steps: int) -> None:
        if name not in self.bars:
            self.bars[name] = self.progress.add_task(name, total=steps, speed="")
        accuracy = f"  accuracy {row['accuracy']:.3f}" if "accuracy" in row else ""
        speed = f"loss {row['loss']:.3f}{accuracy}  {row['images_per_second']:,.0f} images/s"
        if row["waited"] >= NOTABLE:
            speed += f"  {row['waited']:.0%} of the time waiting for data"
        self.progress.update(self.bars[name], completed=row["step"], speed=speed)

    def _warn(self) -> None:
        if self.warnings and _size(self.warnings) > self.read:
            with open(self.warnings) as file:
                file.seek(self.read)
                said = file.read()
                self.read = file.tell()
            self.progress.console.print(said.rstrip(), markup=False, highlight=False, soft_wrap=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _last_row(path: Path) -> dict | None:
    with open(path, "rb") as file:
        file.seek(max(0, _size(path) - 2000))
        lines = file.read().splitlines()
    for line in reversed(lines):
        try:
            return json.loads(line)
        except ValueError:  # still being written, or cut by the seek
            continue
    return None
