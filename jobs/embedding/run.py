"""Computes the parts of features that are missing, and merges all into one file."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from cluster.job import Job, Retrying, run_here
from cluster.scheduler import run_on_ray
from cluster.session import session
from jobs.embedding.content import Content
from jobs.embedding.formats import FORMATS, companion
from jobs.embedding.parts import compute_part, record_file
from jobs.embedding.plan import Plan
from jobs.embedding.progress import EmbeddingProgress
from jobs.embedding.record import EmbeddingRecord, PartRecord
from jobs.execution.progress import retry_line
from jobs.execution.signals import on_signals
from jobs.study.folder import JobsFailed, Study, Terminated
from ssl_core.data.summary import summary
from ssl_core.errors import UserError
from ssl_core.storage.files import exists, glob_files, is_local, move_file, remove

MANIFEST = "embedding.json"  # in the folder of the parts: what they are of

console = Console(stderr=True)


@dataclass(frozen=True)
class Embedded:
    """Says what was written.

    Attributes:
        rows: Images with features; None if the file was there already.
        skipped: Names of the images that cannot be decoded.
    """

    rows: int | None
    skipped: list[str]


def run_plan(plan: Plan) -> Embedded:
    """Writes the file of a plan, unless it is there already.

    Raises:
        UserError: If the file or its parts are of something else, or no image can be decoded.
        JobsFailed: If a part failed, after all that could be computed is.
        Terminated: If a signal asked this process to stop.
    """
    record = plan.embedding.record
    if exists(plan.output):
        record.check_same(_record_in(plan), str(plan.output))
        if not exists(plan.folder / MANIFEST):
            return Embedded(None, [])
    _check_folder(plan)
    for line in (summary(plan.source), *(f"{record.encoder}: {note}" for note in plan.encoder.notes)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    work = Study(plan.folder)
    with work.lock():
        record.write(plan.folder / MANIFEST)
        content = Content(record, plan.source, plan.folder, _compute_parts(plan, work))
        if not content.rows:
            raise UserError(f"{record.data}: none of {record.images:,} images can be decoded")
        _merge(plan, content)
        found = Embedded(content.rows, content.skipped)
        _remove_parts(plan.folder)
    if is_local(plan.folder):
        with contextlib.suppress(OSError):  # another command has begun
            plan.folder.rmdir()
    return found


def _record_in(plan: Plan) -> EmbeddingRecord:
    """Returns what the file that is there says that it is of. Raises UserError if it does not say so."""
    try:
        return EmbeddingRecord.parse(FORMATS[plan.output.suffix].describe(plan.output), str(plan.output))
    except Exception as error:  # whatever reading another program's file raises
        raise UserError(
            f"{plan.output} is there already and is not of this command: remove it, or choose another --output"
        ) from error


def _check_folder(plan: Plan) -> None:
    """Raises UserError if the folder of the parts holds something else, or what would be written is there already."""
    folder, manifest = plan.folder, plan.folder / MANIFEST
    for suffix in FORMATS[plan.output.suffix].companions:
        if not exists(manifest) and exists(path := companion(plan.output, suffix)):
            raise UserError(
                f"{path} is there already, without {plan.output.name}: remove it, or choose another --output"
            )
    if is_local(folder) and folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file, where the folder of the parts would be: choose another --output")
    if exists(manifest):
        plan.embedding.record.check_same(EmbeddingRecord.read(manifest), str(folder))
    elif any(not path.name.startswith(".") and path.name != "driver.json" for path in glob_files(folder, "*")):
        raise UserError(f"{folder} holds something else than parts: choose another --output")


def _compute_parts(plan: Plan, work: Study) -> list[PartRecord]:
    """Computes the parts that are missing, shows progress, and returns the records of all in order.

    Args:
        plan: The plan.
        work: The folder of the parts, which keeps tracebacks.

    Raises:
        JobsFailed: If a part failed, after all that could be computed is.
        Terminated: If a signal asked this process to stop.
    """
    record, found, failed = plan.embedding.record, {}, []
    names = [f"part-{number:06d}" for number in range(record.parts)]
    for number, name in enumerate(names):
        if exists(record_file(plan.folder, number)):
            found[name] = PartRecord.read(record_file(plan.folder, number))
    gpus = 1 if plan.embedding.device == "cuda" else 0
    jobs = [
        Job(name, compute_part, (plan.embedding, number), gpus=gpus)
        for number, name in enumerate(names)
        if name not in found
    ]
    workers = plan.workers if jobs else 0
    done = sum(_images(part) for part in found.values())
    if done:
        console.print(f"{done:,} of {record.images:,} images are there already", highlight=False)
    with (
        _ray(workers),
        EmbeddingProgress(console, record.images, done) as progress,
        on_signals() as signal_received,
    ):
        for event in (run_on_ray if workers else run_here)(jobs, lambda: bool(signal_received()), progress.report):
            if isinstance(event, Retrying):
                progress.note(retry_line(event, work))
            elif event.error:
                failed.append(event)
                kept = escape(str(work.failure(event.name, event.error)))
                progress.note(f"[red]failed[/]    {event.name}: {escape(event.reason or 'no message')} ({kept})")
            else:
                found[event.name] = event.value
                progress.part_ended(event.name, _images(event.value))
    if number := signal_received():
        raise Terminated(number)
    if failed:
        raise JobsFailed(f"{len(failed)} of {len(jobs)} parts failed; run the same command again to compute them")
    return [found[name] for name in names]


def _images(part: PartRecord) -> int:
    return part.images + len(part.skipped)


@contextlib.contextmanager
def _ray(workers: int) -> Iterator[None]:
    """Starts Ray for the block if there are workers."""
    if not workers:
        yield
        return
    with session(cpus=workers):
        yield


def _merge(plan: Plan, content: Content) -> None:
    """Writes the file of all parts, and those beside it, which come before it to their places."""
    kind, local = FORMATS[plan.output.suffix], is_local(plan.output)
    with tempfile.TemporaryDirectory(dir=plan.folder if local else None) as place:
        path = Path(place) / plan.output.name
        kind.write(path, content)
        for suffix in (*kind.companions, ""):
            move_file(companion(path, suffix), companion(plan.output, suffix))


def _remove_parts(folder: Path) -> None:
    """Removes the parts of a file that is written, and their folder."""
    if is_local(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    for path in glob_files(folder, "*.*"):
        if path.name != "driver.json":  # the lock's, which goes with it
            remove(path)
