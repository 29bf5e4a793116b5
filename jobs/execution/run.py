"""Does a study's jobs, pretrainings and evaluations alike, in this process or on Ray, and shows how it goes."""

import logging
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

import jobs.pretraining.worker as worker
import jobs.report.caveats as caveats
from cluster.head import ClusterError
from cluster.job import Again, Job, Outcome, run_here
from cluster.scheduler import run_on_ray
from cluster.session import on_each, session, wait_for
from cluster.worker_group import on_workers
from jobs.config.evaluation import Evaluation
from jobs.config.runtime import Group, Where
from jobs.evaluation.encoders import Judged
from jobs.evaluation.jobs import jobs as evaluation_jobs
from jobs.evaluation.records import headline
from jobs.execution.progress import Watch, again
from jobs.execution.signals import on_signals
from jobs.pretraining.run import Training, decoders
from jobs.study.folder import JobsFailed, Left, Study
from jobs.study.similar_runs import unlike_earlier
from ssl_core.data.dataset import Source, open_source
from ssl_core.data.summary import summary
from ssl_core.errors import BadInput, StoreFailed
from ssl_core.storage.files import exists, is_local
from ssl_core.storage.retry import briefly

console = Console(stderr=True)


@dataclass(frozen=True)
class Plan:
    """What is to be done: pretrainings that are not complete, and the encoders to judge (finished and planned)."""

    study: Study
    where: Where
    trainings: list[Training]
    judged: list[Judged]
    evaluation: Evaluation | None = None

    def sources(self) -> list[Source]:
        """The datasets that it trains or evaluates on."""
        trained = [open_source(one.recipe.data, one.recipe.size) for one in self.trainings]
        return [*trained, *(one.source for one in self.judged)]

    def workload(self, jobs: list[Job]) -> str:
        """How much is to be done, in one line."""
        names = {job.name for job in jobs}
        recipes = [one.recipe for one in self.trainings if one.name in names]
        steps = sorted({recipe.steps for recipe in recipes})
        parts = []
        if len(recipes) == 1:
            passes = steps[0] * recipes[0].task.batch / len(self.sources()[0].train)
            parts.append(f"1 training of {steps[0]:,} steps of {recipes[0].task.batch:,} images, {passes:,.3g} passes")
        elif recipes:
            span = f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"
            parts.append(f"{len(recipes)} trainings of {span} steps")
        if others := len(jobs) - len(recipes):
            parts.append(f"{others} jobs of evaluation")
        return f"to do: {', '.join(parts)}"

    def jobs(self) -> list[Job]:
        device, group = self.where.place(), self.where.group
        missing = [t for t in self.trainings if not exists(t.folder / "encoder.json")]
        together = group.most > 1
        train = _train_together if together else worker.run
        extra = (device, group) if together else (device,)
        count = max(1, group.least)
        stretch = max(1, group.most) / count
        room = dict(cpus=count, gpus=count if device == "cuda" else 0, stretch=stretch, delegates=together)
        found = [Job(t.name, train, (t, *extra), **room) for t in missing]
        if self.evaluation:
            threads = decoders(self.where, self.judged[0].source)
            planned = {t.name for t in missing}
            found += evaluation_jobs(
                self.study, self.judged, self.evaluation, self.where.tracking, device, planned, threads
            )
        return found


def _train_together(one: Training, device: str, group: Group) -> dict:
    return on_workers(
        worker.run,
        one,
        workers=group,
        gpu=device == "cuda",
        name=f"{one.name}-{time.time_ns()}",
        logs=Study(one.study).logs / "ray",
        silence=max(worker.FIRST_STEP, one.hang_after) + 60,
    )


def do(plan: Plan) -> None:
    """Runs what is missing. Raises JobsFailed, after all that could run has run, or Left, if a signal
    asked for it."""
    jobs = plan.jobs()
    limits = caveats.look(plan.study, plan.judged, plan.evaluation) if plan.evaluation else []
    if not jobs:
        return
    similar = [line for one in plan.trainings if (line := unlike_earlier(one))]
    read = dict.fromkeys(summary(source) for source in plan.sources())
    for line in [*read, *limits, *similar, plan.workload(jobs)]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for name in ("timm", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)
    trainings = {t.name: (t.folder / "metrics.jsonl", t.recipe.steps) for t in plan.trainings}
    failed, watched = [], {job.name: trainings[job.name] for job in jobs if job.name in trainings}
    elsewhere = plan.where.group.most > 0
    with (
        room(plan),
        Watch(console, watched, len(jobs), plan.study.root if elsewhere else None) as watch,
        on_signals() as signal_received,
    ):
        for event in (run_on_ray if elsewhere else run_here)(jobs, lambda: bool(signal_received())):
            if isinstance(event, Again):
                watch.note(again(event, plan.study))
                continue
            watch.ended(event.name, _line(event, plan.study))
            if event.error:
                failed.append(event)
    if number := signal_received():
        raise Left(number)
    if failed:
        raise JobsFailed(
            f"{len(failed)} of {len(jobs)} jobs failed, tracebacks in {plan.study.root / 'failures'}; "
            "run the same command again to do them over"
        )


@contextmanager
def room(plan: Plan) -> Iterator[None]:
    """Ray, if workers are asked for. Raises ClusterError if the cluster stays too small for them, or BadInput if its
    machines do not share the study's folder."""
    where = plan.where
    if not where.group.most:
        yield
        return

    def waiting(what: str) -> None:
        console.print(what, markup=False, highlight=False, soft_wrap=True)

    with session(address=where.address, seconds=where.wait_seconds, waiting=waiting):
        kind = "GPU" if where.place() == "cuda" else "CPU"
        wait_for(kind, where.group.least, where.wait_seconds, waiting)
        if is_local(plan.study.root):
            _check_shared(plan.study)
        yield


def _check_shared(study: Study) -> None:
    """Raises BadInput if a machine of the cluster does not see the study's folder."""
    for seen in on_each(_host_that_sees, str(study.file)):
        if isinstance(seen, Exception):
            raise ClusterError(f"a machine of the cluster cannot work: {' '.join(str(seen).split())[:300]}")
        host, sees = seen
        if not sees:
            raise BadInput(
                f"--storage: {host} does not see {study.root}; on several machines give a folder that all "
                "of them share, or a URL such as s3://bucket/runs"
            )


def _host_that_sees(path: str) -> tuple[str, bool]:
    return socket.gethostname(), Path(path).exists()


def _line(outcome: Outcome, study: Study) -> str:
    """What to say of a job that ended, in rich's markup."""
    name = escape(outcome.name)
    if outcome.because:
        return f"[yellow]not run[/]  {name}: needs {escape(outcome.because)}"
    if outcome.error:
        try:
            with briefly():
                kept = str(study.failure(outcome.name, outcome.error))
        except (OSError, StoreFailed) as error:  # a full disk, say: the other jobs' outcomes are still to be told
            kept = f"traceback not kept: {error}"
        return f"[red]failed[/]   {name}: {escape(outcome.why or 'no message')} ({escape(kept)})"
    value = outcome.value
    if isinstance(value, dict) and "seconds" in value:
        skipped = f", {len(value['skipped'])} files skipped" if value["skipped"] else ""
        return f"[green]trained[/]  {name}: {value['steps']} steps in {value['seconds']:.0f} s{skipped}"
    if isinstance(value, dict) and "numbers" in value:
        return f"[green]judged[/]   {name}: {headline(value['protocol'], value['numbers'])}"
    return ""
