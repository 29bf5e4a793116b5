"""Runs `tilespin pack SRC DST`: makes a dataset small once, in tar shards that load fast."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console
from rich.markup import escape

from cluster.job import Job, Retrying, run_here
from cluster.scheduler import run_on_ray
from cluster.session import session
from jobs.config.options import VerbOptions
from jobs.config.parsing import parse
from jobs.config.plugins import PluginOptions
from jobs.execution.progress import ProgressMonitor, retry_line
from jobs.execution.signals import on_signals
from jobs.study.folder import JobsFailed, Study, Terminated
from ssl_core.data.dataset import Source, open_source
from ssl_core.data.label_table import split_column
from ssl_core.data.packing.index import (
    INDEX,
    PARTS,
    PLAN,
    SKIPPED,
    WORK,
    assign_shards,
    check_same,
    make_plan,
    write_index,
)
from ssl_core.data.packing.record import PackIndex, PackPlan
from ssl_core.data.packing.shard import Packing, finish_shard
from ssl_core.data.summary import summary
from ssl_core.errors import UserError
from ssl_core.storage.files import exists, glob_files, is_local, open_path
from ssl_core.storage.object_store import is_url

console = Console(stderr=True)


@dataclass(frozen=True, kw_only=True)
class Options(VerbOptions):
    """Resize a dataset once and write it as tar shards that load fast and that webdataset and DALI read too. The
    result is a dataset for --data. The same command again continues, verifies every shard and writes damaged ones
    anew."""

    src: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SRC")]
    """dataset: a folder of images or of shards, a packed dataset, a URL, cifar10, or fashion-mnist"""
    dst: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DST")]
    """new folder for the packed dataset, or a URL"""
    packing: Packing = Packing()
    workers: int = 0
    """0: run in this process
    N: run on Ray, N shards at once, or as many as fit on the cluster that RAY_ADDRESS names"""
    plugins: PluginOptions = PluginOptions()


def main(arguments: list[str]) -> None:
    """Runs `tilespin pack` with these command-line arguments."""
    options = parse(Options, "pack", arguments)
    packing, workers = options.packing.checked(), options.workers
    if workers < 0:
        raise UserError(f"--workers is {workers}, expected 0 or more")
    folder = destination(options.src, options.dst)
    source = open_dataset(options.src)
    work = Study(folder / WORK)
    for name, kind in ((PLAN, PackPlan), (INDEX, PackIndex)):
        if exists(folder / name):
            check_same(kind.read(folder / name), source, packing, folder)
            break
    with work.lock():
        plan = load_plan(folder, source, packing)
        jobs = [
            Job(name, pack_one, (options.src, source.digest, str(folder), name, part, numbers, packing))
            for name, part, numbers in assign_shards(source, plan)
        ]
        console.print(summary(source), markup=False, highlight=False, soft_wrap=True)
        if source.masks:
            console.print("masks are not packed: evaluate on the folder itself", highlight=False)
        records = run_packing_jobs(jobs, workers, work)
        print_summary(folder, write_index(folder, source, plan, records), records)


def destination(src: str, dst: str) -> Path:
    """Returns the folder to pack into: a path, or a URL as in `open_path`.

    Args:
        src: The dataset, as it was given.
        dst: The folder or URL, as it was given.

    Raises:
        UserError: If it lies in the source, is no folder, cannot be opened, or holds something else.
    """
    folder, origin = open_path(dst.removeprefix("file://"), "pack"), split_column(src)[0].removeprefix("file://")
    if is_local(folder):
        folder = folder.resolve()
    if not is_url(origin):  # of no file system perhaps, but of a plug-in
        place = open_path(origin, "pack").resolve()
        origin = str(place) if place.is_dir() else ""
    if origin and f"{folder}/".startswith(f"{origin.rstrip('/')}/"):
        raise UserError(f"{dst} lies inside {src}, whose images it would join: choose another folder")
    if is_local(folder) and folder.exists() and not folder.is_dir():
        raise UserError(f"{dst} is a file, expected a new folder")
    others = {path.name for path in glob_files(folder, "*")} - {WORK}
    if others and not any(exists(folder / name) for name in (PLAN, INDEX)):
        raise UserError(f"{dst} holds something else: choose a new folder")
    return folder


def open_dataset(src: str) -> Source:
    """Opens the dataset to pack. Raises UserError if there is none."""
    try:
        return open_source(src)
    except UserError as error:
        raise UserError(str(error).replace("--data ", "", 1)) from error


def load_plan(folder: Path, source: Source, packing: Packing) -> PackPlan:
    """Returns the plan of an earlier attempt, or makes one; deletes unfinished files of an attempt that was killed."""
    if is_local(folder):  # a store has no unfinished objects
        for torn in (path for folder in (folder, folder / WORK) for path in folder.glob(".shard-*")):
            torn.unlink()
    if not exists(folder / PLAN):
        make_plan(source, packing).write(folder / PLAN)
    plan = PackPlan.read(folder / PLAN)
    check_same(plan, source, packing, folder)
    return plan


def pack_one(data: str, digest: str, place: str, name: str, part: str, numbers: np.ndarray, packing: Packing) -> dict:
    """Writes one shard and its record, as a job that may run on another machine.

    Args:
        data: The dataset, as --data takes it.
        digest: The digest that the dataset had when the packing began.
        place: The packed dataset's folder or URL.
        name: The shard's file name.
        part: The part of the dataset that the shard belongs to: "train" or "test".
        numbers: [n] integers; the numbers of the shard's images in that part.
        packing: How images are packed.

    Returns:
        The shard's record.

    Raises:
        UserError: If the dataset has changed since the packing began.
    """
    source = open_source(data)
    if source.digest != digest:
        raise UserError(f"{data} has changed since packing began")
    folder = open_path(place)
    record = folder / WORK / f"{Path(name).stem}.json"
    return finish_shard(folder / name, record, getattr(source, part), part, numbers, packing)


def run_packing_jobs(jobs: list[Job], workers: int, work: Study) -> list[dict]:
    """Runs all jobs, shows their progress, and returns the shards' records in order.

    Args:
        jobs: One job for each shard.
        workers: 0 for this process, else how many shards Ray packs at once.
        work: The folder of the packing's own files, which keeps tracebacks.

    Raises:
        JobsFailed: If a shard failed, after all that could be packed is.
        Terminated: If a signal asked this process to stop.
    """
    records, failures = {}, []
    with (
        _check_workers(workers),
        ProgressMonitor(console, {}, len(jobs), None) as watch,
        on_signals() as signal_received,
    ):
        for outcome in (run_on_ray if workers else run_here)(jobs, lambda: bool(signal_received())):
            if isinstance(outcome, Retrying):
                watch.note(retry_line(outcome, work))
                continue
            records[outcome.name] = outcome.value
            if outcome.error:
                failures.append(work.failure(outcome.name, outcome.error))
                reason = escape(outcome.error.strip().splitlines()[-1])
                watch.job_ended(
                    outcome.name, f"[red]failed[/]    {outcome.name}: {reason} ({escape(str(failures[-1]))})"
                )
            else:
                watch.job_ended(outcome.name, "")
    if number := signal_received():
        raise Terminated(number)
    if failures:
        raise JobsFailed(f"{len(failures)} of {len(jobs)} shards failed; run the same command again to write them")
    return [records[job.name] for job in jobs]


@contextmanager
def _check_workers(workers: int) -> Iterator[None]:
    if not workers:
        yield
        return
    with session(cpus=workers):
        yield


def print_summary(folder: Path, index: PackIndex, records: list[dict]) -> None:
    """Prints what was packed, what was left out and why."""
    written = [record for record in records if record["images"]]
    kept = sum(record["kept"] for record in written)
    counts = [f"{sum(r['images'] for r in written if r['part'] == part):,} {part}" for part in PARTS]
    again = f", {kept:,} of them already there" if kept else ""
    count = f"{len(written):,} shard{'s' if len(written) > 1 else ''}"
    print(f"{folder}: {index.images:,} images ({', '.join(counts)}) in {count}{again}")
    after = sum(record["bytes"] for record in written)
    print(f"{index.source_bytes / 1e6:,.1f} MB before, {after / 1e6:,.1f} MB packed")
    if index.skipped or index.duplicates:
        lost, twice = index.skipped, index.duplicates
        print(f"left out: {lost:,} that cannot be decoded, {twice:,} duplicates; named in {folder / SKIPPED}")
