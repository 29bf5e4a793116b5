"""Does a study's jobs, pretrainings and evaluations alike, in this process or on Ray, and shows how it goes."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

import jobs.cells as cells
import jobs.training as training
from cluster.launch import on_workers
from cluster.queue import Job, Outcome, run_here, run_on_ray
from cluster.session import session
from jobs.layout import JobsFailed, Study
from jobs.notices import log as warnings_log
from jobs.progress import Watch
from jobs.where import Where
from ssl_core.data.source import open_source
from ssl_core.errors import BadInput, Diverged

console = Console(stderr=True)


@dataclass(frozen=True)
class Plan:
    """What is to be done: pretrainings that are not complete, and the encoders to judge (finished and planned)."""

    study: Study
    where: Where
    trainings: list[training.Training]
    judged: list[cells.Judged]
    evaluation: cells.Evaluation | None = None

    def jobs(self) -> list[Job]:
        device = self.where.place()
        missing = [t for t in self.trainings if not (t.folder / "encoder.json").exists()]
        together = self.where.workers > 1
        train = _train_together if together else training.run
        extra = (device, self.where.workers) if together else (device,)
        count = max(1, self.where.workers)
        room = dict(cpus=count, gpus=count if device == "cuda" else 0, delegates=together)
        found = [Job(t.name, train, (t, *extra), **room) for t in missing]
        if self.evaluation:
            threads = training.decoders(self.where, self.judged[0].source)
            planned = {t.name for t in missing}
            found += cells.jobs(self.study, self.judged, self.evaluation, self.where.tracking, device, planned,
                                   threads)  # fmt: skip
        return found


def _train_together(one: training.Training, device: str, workers: int) -> dict:
    return on_workers(
        training.run, one, workers=workers, gpu=device == "cuda", name=f"{one.name}-{time.time_ns()}",
        logs=Study(Path(one.study)).logs / "ray", final=(BadInput, Diverged),
    )  # fmt: skip


def do(plan: Plan) -> None:
    """Runs what is missing. Raises JobsFailed, after all that could run has run."""
    jobs = plan.jobs()
    if not jobs:
        return
    for note in sorted(
        {note for one in plan.trainings for note in open_source(one.recipe.data, one.recipe.size).notes}
    ):
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    for name in ("timm", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)
    trainings = {t.name: (t.folder / "metrics.jsonl", t.recipe.steps) for t in plan.trainings}
    failed, watched = [], {job.name: trainings[job.name] for job in jobs if job.name in trainings}
    log = warnings_log(plan.study.root) if plan.where.workers else None
    with _room(plan.where), Watch(console, watched, len(jobs), log) as watch:
        for outcome in run_on_ray(jobs) if plan.where.workers else run_here(jobs):
            watch.ended(outcome.name, _line(outcome, plan.study))
            if outcome.error:
                failed.append(outcome)
    if failed:
        raise JobsFailed(f"{len(failed)} of {len(jobs)} jobs failed, tracebacks in {plan.study.root / 'failures'}; "
                         "run the same command again to do them over")  # fmt: skip


@contextmanager
def _room(where: Where) -> Iterator[None]:
    """Ray, if `where` asks for workers. Raises BadInput if the cluster can never hold what is asked for."""
    if not where.workers:
        yield
        return
    with session() as resources:
        kind = "GPU" if where.place() == "cuda" else "CPU"
        if where.workers > resources.get(kind, 0):
            raise BadInput(f"--workers {where.workers}: the cluster has {resources.get(kind, 0):.0f} {kind}s in all")
        yield


def _line(outcome: Outcome, study: Study) -> str:
    """What to say of a job that ended, in rich's markup."""
    name = escape(outcome.name)
    if outcome.because:
        return f"[yellow]not run[/]  {name}: needs {escape(outcome.because)}"
    if outcome.error:
        lines = outcome.error.strip().splitlines()
        try:
            kept = str(study.failure(outcome.name, outcome.error))
        except OSError as error:  # a full disk, say: the other jobs' outcomes are still to be told
            kept = f"traceback not kept: {error}"
        return f"[red]failed[/]   {name}: {escape(lines[-1] if lines else 'no message')} ({escape(kept)})"
    value = outcome.value
    if isinstance(value, dict) and "seconds" in value:
        skipped = f", {len(value['skipped'])} files skipped" if value["skipped"] else ""
        return f"[green]trained[/]  {name}: {value['steps']} steps in {value['seconds']:.0f} s{skipped}"
    if isinstance(value, dict) and "numbers" in value:
        return f"[green]judged[/]   {name}: top1 {value['numbers']['top1']:.1%}"
    return ""
