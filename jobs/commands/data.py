"""Runs `tilespin data DATA`: describes a dataset before anybody trains on it for days."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jobs.config.options import VerbOptions
from jobs.config.parsing import parse
from jobs.config.plugins import PluginOptions
from jobs.report.dataset_view import print_description
from ssl_core.data.contact_sheet import contact_sheet
from ssl_core.data.dataset import Source, open_source
from ssl_core.data.description import Effort, describe, looked_at
from ssl_core.data.summary import summary
from ssl_core.errors import UserError
from ssl_core.storage.files import is_local, open_path, write_bytes

console = Console(stderr=True)
SECONDS_UNSAID = 0.5  # an opening that takes longer is announced


@dataclass(frozen=True, kw_only=True)
class Options(VerbOptions):
    """Describe a dataset: classes, formats and sizes, what cannot be read, and what is there twice. Of all images on a
    disk the headers are read, and a thousand of each split decoded, or as many as are compared."""

    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """dataset, as --data of the other verbs takes it"""
    size: int | None = None
    """side in pixels that training would resize images to; default: the dataset's own, 96 for a folder"""
    effort: Effort = Effort()
    contact_sheet: str | None = None
    """PNG file to write, or a URL: 64 training images, evenly over the classes"""
    json: str | None = None
    """JSON file to write, or a URL: all that was found"""
    plugins: PluginOptions = PluginOptions()


def main(arguments: list[str]) -> None:
    """Runs `tilespin data` with these command-line arguments."""
    options = parse(Options, "data", arguments)
    effort = options.effort.checked()
    for option, given in (("--contact-sheet", options.contact_sheet), ("--json", options.json)):
        _check_writable(option, given)
    opening = Timer(SECONDS_UNSAID, _say_opening, [options.dataset])
    opening.start()
    try:
        source = open_dataset(options.dataset, options.size)
    finally:
        opening.cancel()
    print(summary(source), flush=True)
    seen = looked_at(source, effort)
    with Bar() as bar:
        record = describe(source, seen, options.dataset, effort, bar.report)
    print_description(record, Console())
    if options.contact_sheet is not None:
        sheet = contact_sheet(seen)
        _write("--contact-sheet", options.contact_sheet, lambda path: write_bytes(path, sheet))
    if options.json is not None:
        _write("--json", options.json, record.write)


def _say_opening(data: str) -> None:
    console.print(f"opening {data}", markup=False, highlight=False, soft_wrap=True)


def open_dataset(data: str, size: int | None) -> Source:
    """Opens the dataset to describe. Raises UserError if there is none."""
    try:
        return open_source(data, size)
    except UserError as error:
        raise UserError(str(error).replace("--data ", "", 1)) from error


class Bar:
    """Shows how far the reading of images is: a bar, or a line for each step where there is no terminal."""

    def __init__(self) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_interactive,
        )
        self.what, self.task = "", self.progress.add_task("", total=None)

    def __enter__(self) -> "Bar":
        self.progress.start()
        return self

    def __exit__(self, *_) -> None:
        self.progress.stop()

    def report(self, what: str, done: int, total: int) -> None:
        """Shows that `done` of `total` images are done of the step `what`."""
        if what != self.what:
            self.what = what
            self.progress.reset(self.task, description=what, total=total)
            if self.progress.disable:
                console.print(f"{what}: {total:,}", markup=False, highlight=False)
        self.progress.update(self.task, completed=done)


def _check_writable(option: str, given: str | None) -> None:
    """Raises UserError if a file cannot be written at the place that an option names, if any, as far as can be seen."""
    path = None if given is None else open_path(given, option)
    if path is not None and is_local(path) and path.exists() and not path.is_file():
        what = "a folder: give a file in it" if path.is_dir() else "no plain file"
        raise UserError(f"{option} {given} is {what}")


def _write(option: str, given: str, write: Callable[[Path], None]) -> None:
    """Writes a file that an option names. Raises UserError if it cannot be written."""
    try:
        write(open_path(given, option))
    except OSError as error:
        raise UserError(f"{option} {given} cannot be written: {error.strerror or error}") from error
    print(f"{given}: written")
