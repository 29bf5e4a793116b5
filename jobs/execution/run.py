"""Runs a study's jobs, pretrainings and evaluations alike, in this process or on Ray, and shows progress."""

import logging
import socket
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

import jobs.pretraining.worker as worker
import jobs.report.caveats as caveats
from cluster.head import ClusterError
from cluster.job import Job, Outcome, Retrying, run_here
from cluster.scheduler import run_on_ray
from cluster.session import run_on_each_node, session, wait_for_resources
from cluster.worker_group import run_worker_group
from jobs.config.evaluation import Evaluation
from jobs.config.runtime import RuntimeConfig, WorkerRange
from jobs.evaluation.encoders import EvaluatedEncoder
from jobs.evaluation.jobs import evaluation_jobs
from jobs.evaluation.records import headline
from jobs.execution.progress import ProgressMonitor, retry_line
from jobs.execution.signals import on_signals
from jobs.pretraining.run import Training, decode_threads
from jobs.pretraining.similar_runs import differs_from_earlier
from jobs.study.folder import JobsFailed, Study, Terminated
from ssl_core.data.dataset import Source, open_source
from ssl_core.data.summary import summary
from ssl_core.errors import StorageError, UserError
from ssl_core.storage.files import exists, is_local
from ssl_core.storage.records import EncoderRecord, EvaluationRecord
from ssl_core.storage.retry import short_deadline
from ssl_core.task import task_name

console = Console(stderr=True)


@dataclass(frozen=True)
class StudyPlan:
    """Holds what is to be done: pretrainings that are not complete, and the encoders to evaluate (finished and
    planned)."""

    study: Study
    runtime: RuntimeConfig
    trainings: list[Training]
    encoders: list[EvaluatedEncoder]
    evaluation: Evaluation | None = None

    def sources(self) -> list[Source]:
        """Opens the datasets that the plan trains or evaluates on."""
        trained = [open_source(one.recipe.data, one.recipe.size) for one in self.trainings]
        return [*trained, *(one.source for one in self.encoders)]

    def outline(self) -> list[str]:
        """Returns how many trainings and evaluations there are, of what, and how many are there already."""
        jobs = self.jobs()
        waiting = {job.name for job in jobs}
        recipes = [one.recipe for one in self.trainings]
        lines = []
        if recipes:
            kinds = [
                ("task", [task_name(one.task) for one in recipes]),
                ("encoder", [one.encoder for one in recipes]),
                ("start", [one.init for one in recipes]),
                ("seed", [str(one.seed) for one in recipes]),
            ]
            of = ", ".join(_count_of(kind, dict.fromkeys(values)) for kind, values in kinds)
            there = sum(one.name not in waiting for one in self.trainings)
            lines.append(f"{_number(len(recipes), 'training')} ({of}), {there} of them there already")
        if self.evaluation:
            data = Counter((one.data, one.size) for one in self.encoders)
            total = sum(len(self.evaluation.on(one.data, one.size).protocols) for one in self.encoders)
            others = waiting - {one.name for one in self.trainings}
            missing = sum(not name.startswith(("features/", "tracking/")) for name in others)
            on = ", ".join(f"{open_source(*one).name} of {one[1]} px" for one in data)
            encoders = _number(max(data.values()), "encoder")
            lines.append(
                f"{_number(total, 'evaluation')} of {encoders}, baselines included, on {on}; "
                f"{total - missing} of them there already"
            )
        return lines

    def workload(self, jobs: list[Job]) -> str:
        """Returns one line that says how much is to be done."""
        names = {job.name for job in jobs}
        recipes = [one.recipe for one in self.trainings if one.name in names]
        steps = sorted({recipe.steps for recipe in recipes})
        parts = []
        if len(recipes) == 1:
            passes = steps[0] * recipes[0].task.batch / len(recipes[0].source().train)
            parts.append(f"1 training of {steps[0]:,} steps of {recipes[0].task.batch:,} images, {passes:,.3g} passes")
        elif recipes:
            span = f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"
            parts.append(f"{len(recipes)} trainings of {span} steps")
        if others := sum(not job.name.startswith("tracking/") for job in jobs) - len(recipes):
            parts.append(f"{others} jobs of evaluation")
        return f"to do: {', '.join(parts)}"

    def jobs(self) -> list[Job]:
        """Returns the jobs that are missing, pretrainings first."""
        device, group = self.runtime.resolved_device(), self.runtime.worker_range
        missing = [t for t in self.trainings if not exists(t.folder / "encoder.json")]
        multi_worker = group.max > 1
        train = _train_with_group if multi_worker else worker.run_training
        extra = (device, group) if multi_worker else (device,)
        count = max(1, group.min)
        scale_up = max(1, group.max) / count
        found = [
            Job(
                t.name,
                train,
                (t, *extra),
                cpus=count,
                gpus=count if device == "cuda" else 0,
                scale_up=scale_up,
                starts_workers=multi_worker,
            )
            for t in missing
        ]
        if self.evaluation:
            threads = decode_threads(self.runtime, self.encoders[0].source)
            planned = {t.name for t in missing}
            found += evaluation_jobs(
                self.study, self.encoders, self.evaluation, self.runtime.tracking, device, planned, threads
            )
        return found


def show_plan(plan: StudyPlan) -> None:
    """Prints what a plan is about and how much of it is to be done, and does nothing."""
    for line in [*dict.fromkeys(summary(source) for source in plan.sources()), *plan.outline()]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _train_with_group(one: Training, device: str, group: WorkerRange) -> EncoderRecord | None:
    return run_worker_group(
        worker.run_training,
        one,
        workers=group,
        gpu=device == "cuda",
        name=f"{one.name}-{time.time_ns()}",
        logs=Study(one.study).logs / "ray",
        timeout=max(worker.FIRST_STEP_TIMEOUT_S, one.step_timeout) + 60,
    )


def run_plan(plan: StudyPlan) -> None:
    """Runs what is missing of a plan, and shows progress.

    Raises:
        JobsFailed: If a job failed, after all that could run has run.
        Terminated: If a signal asked this process to stop.
        ClusterError: If the cluster does not answer, or stays too small.
        UserError: If the cluster's machines do not share the study's folder.
    """
    jobs = plan.jobs()
    limits = caveats.find_caveats(plan.study, plan.encoders, plan.evaluation) if plan.evaluation else []
    if not jobs:
        return
    similar = [line for one in plan.trainings if (line := differs_from_earlier(one))]
    read = dict.fromkeys(summary(source) for source in plan.sources())
    for line in [*read, *limits, *similar, plan.workload(jobs)]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for name in ("timm", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)
    trainings = {t.name: t.recipe.steps for t in plan.trainings}
    failed, watched = [], {job.name: trainings[job.name] for job in jobs if job.name in trainings}
    on_ray = plan.runtime.worker_range.max > 0
    with (
        ray_session(plan),
        ProgressMonitor(console, watched, len(jobs), plan.study.root if on_ray else None) as monitor,
        on_signals() as signal_received,
    ):
        for event in (run_on_ray if on_ray else run_here)(jobs, lambda: bool(signal_received()), monitor.report):
            if isinstance(event, Retrying):
                monitor.note(retry_line(event, plan.study))
                continue
            monitor.job_ended(event.name, _outcome_line(event, plan.study))
            if event.error:
                failed.append(event)
    if number := signal_received():
        raise Terminated(number)
    if failed:
        raise JobsFailed(
            f"{len(failed)} of {len(jobs)} jobs failed, tracebacks in {plan.study.root / 'failures'}; "
            "run the same command again to repeat them"
        )


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _count_of(kind: str, values: Collection[str]) -> str:
    """Returns how many there are, with their names."""
    return f"{_number(len(values), kind)}: {' '.join(values)}"


@contextmanager
def ray_session(plan: StudyPlan) -> Iterator[None]:
    """Starts Ray for the block if the plan asks for workers, or joins a cluster.

    Args:
        plan: The plan.

    Raises:
        ClusterError: If the cluster does not answer, or stays too small.
        UserError: If its machines do not share the study's folder.
    """
    runtime = plan.runtime
    if not runtime.worker_range.max:
        yield
        return

    def notify(what: str) -> None:
        console.print(what, markup=False, highlight=False, soft_wrap=True)

    with session(address=runtime.address, timeout=runtime.cluster_timeout_s, notify=notify):
        kind = "GPU" if runtime.resolved_device() == "cuda" else "CPU"
        wait_for_resources(kind, runtime.worker_range.min, runtime.cluster_timeout_s, notify)
        if is_local(plan.study.root):
            _check_shared(plan.study)
        yield


def _check_shared(study: Study) -> None:
    """Raises UserError if a machine of the cluster does not see the study's folder."""
    for answer in run_on_each_node(_host_that_sees, str(study.file)):
        if isinstance(answer, Exception):
            raise ClusterError(f"a machine of the cluster cannot work: {' '.join(str(answer).split())[:300]}")
        host, sees = answer
        if not sees:
            raise UserError(
                f"--storage: {host} does not see {study.root}; on several machines give a folder that all "
                "of them share, or a URL such as s3://bucket/runs"
            )


def _host_that_sees(path: str) -> tuple[str, bool]:
    return socket.gethostname(), Path(path).exists()


def _outcome_line(outcome: Outcome, study: Study) -> str:
    """Returns the message for a job that ended, in rich's markup."""
    name = escape(outcome.name)
    if outcome.failed_need:
        return f"[yellow]not run[/]   {name}: needs {escape(outcome.failed_need)}"
    if outcome.error:
        try:
            with short_deadline():
                kept = str(study.failure(outcome.name, outcome.error))
        except (OSError, StorageError) as error:  # a full disk, say: the other jobs' outcomes are still to be told
            kept = f"traceback not kept: {error}"
        return f"[red]failed[/]    {name}: {escape(outcome.reason or 'no message')} ({escape(kept)})"
    value = outcome.value
    if isinstance(value, EncoderRecord) and (one := value.training):
        skipped = f", {len(one.skipped)} files skipped" if one.skipped else ""
        return f"[green]trained[/]   {name}: {one.steps} steps in {one.seconds:.0f} s{skipped}"
    if isinstance(value, EvaluationRecord):
        return f"[green]evaluated[/] {name}: {headline(value.protocol.name, value.numbers)}"
    return ""
