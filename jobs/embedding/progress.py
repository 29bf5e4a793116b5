"""Shows how many images have features, how fast it goes and how long it takes still."""

import math
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from jobs.execution.forecast import format_seconds

FIRST_LINE_S, LINE_S = 5.0, 60.0  # where there is no terminal, a line comes so often


class EmbeddingProgress:
    """Shows a bar on a terminal, and lines now and then elsewhere. Used as a context manager.

    Args:
        console: Where progress is shown.
        images: Of all parts.
        done: Those of parts that are there already.
    """

    def __init__(self, console: Console, images: int, done: int):
        self.images, self.done, self.first = images, done, done
        self.running: dict[str, int] = {}  # images that parts have reported, which are not finished yet
        self.started = time.monotonic()
        self.next_line = self.started + FIRST_LINE_S
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
        )
        self.progress = Progress(*columns, console=console, transient=True)
        self.bar = self.progress.add_task("images", total=images, completed=done, speed="")

    def __enter__(self) -> "EmbeddingProgress":
        if self.progress.console.is_interactive:
            self.progress.start()
        return self

    def __exit__(self, *_) -> None:
        if self.progress.console.is_interactive:
            self.progress.stop()

    def report(self, part: str, metrics: dict) -> None:
        """Notes how many images of a part are done."""
        self.running[part] = metrics["images"]
        self._show()

    def part_ended(self, part: str, images: int) -> None:
        """Notes that a part has ended, with so many images done."""
        self.running.pop(part, None)
        self.done += images
        self._show()

    def note(self, line: str) -> None:
        """Prints a line (rich markup)."""
        self.progress.console.print(line, highlight=False, soft_wrap=True)

    def _show(self) -> None:
        now = time.monotonic()
        done = self.done + sum(self.running.values())
        rate = (done - self.first) / max(1e-9, now - self.started)
        left = f", {format_seconds((self.images - done) / rate)} left" if 0 < done < self.images and rate else ""
        speed = f"{rate:,.0f} images/s{left}"
        self.progress.update(self.bar, completed=done, speed=speed)
        if not self.progress.console.is_interactive and now >= self.next_line:
            self.next_line = math.floor(now) + LINE_S
            self.note(f"{done:,} of {self.images:,} images, {speed}")
