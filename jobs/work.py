"""Does a study's jobs, pretrainings and evaluations alike, in this process or on Ray, and shows how it goes."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

import jobs.cells as cells
import jobs.training as training
from cluster.launch import on_workers
from cluster.queue import Job, Outcome, run_here, run_on_ray
from cluster.session import session
from jobs.layout import Study
from jobs.tracking import sync_command
from jobs.where import Where
from ssl_core.errors import BadInput, Diverged

console = Console(stderr=True)


class JobsFailed(RuntimeError):
    """Some jobs failed; the others are done. The command line exits with 1."""


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
            processes = max((t.processes for t in self.trainings), default=max(0, self.where.processes))
            planned = {t.name for t in missing}
            found += cells.jobs(self.study, self.judged, self.evaluation, self.where.tracking, device, planned,
                                   processes)  # fmt: skip
        return found


def _train_together(one: training.Training, device: str, workers: int) -> dict:
    return on_workers(
        training.run, one, workers=workers, gpu=device == "cuda", name=f"{one.name}-{time.time_ns()}",
        logs=Study(Path(one.study)).logs / "ray", final=(BadInput, Diverged),
    )  # fmt: skip


def do(plan: Plan) -> None:
    """Runs what is missing. Raises JobsFailed, after all that could run has run."""
    from jobs.progress import Watch

    jobs = plan.jobs()
    if not jobs:
        return
    for name in ("timm", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)
    trainings = {t.name: (t.folder / "metrics.jsonl", t.recipe.steps) for t in plan.trainings}
    failed, watched = [], {job.name: trainings[job.name] for job in jobs if job.name in trainings}
    with _room(plan.where), Watch(console, watched, len(jobs)) as watch:
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
    if outcome.because:
        return f"[yellow]not run[/]  {outcome.name}: needs {outcome.because}"
    if outcome.error:
        path = study.failure(outcome.name, outcome.error)
        lines = outcome.error.strip().splitlines()
        return f"[red]failed[/]   {outcome.name}: {lines[-1] if lines else 'no message'} ({path})"
    value = outcome.value
    if isinstance(value, dict) and "seconds" in value:
        skipped = f", {len(value['skipped'])} files skipped" if value["skipped"] else ""
        return f"[green]trained[/]  {outcome.name}: {value['steps']} steps in {value['seconds']:.0f} s{skipped}"
    if isinstance(value, dict) and "numbers" in value:
        return f"[green]judged[/]   {outcome.name}: top1 {value['numbers']['top1']:.1%}"
    return ""


def say_sync(study: Study) -> None:
    """How to upload what was tracked offline."""
    command = sync_command(study.root)
    if command:
        print(f"W&B runs are offline; to upload them: {command}", file=sys.stderr)
