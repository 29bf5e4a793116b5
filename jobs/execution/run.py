"""Runs a study's jobs, pretrainings and evaluations alike, in this process or on Ray, and shows progress."""

import logging
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from rich.console import Console
from rich.markup import escape

import jobs.report.caveats as caveats
from cluster.head import ClusterError
from cluster.job import Outcome, Retrying, run_here
from cluster.scheduler import run_on_ray
from cluster.session import run_on_each_node, session, wait_for_resources
from jobs.evaluation.records import headline
from jobs.execution.plan import StudyPlan
from jobs.execution.progress import ProgressMonitor, retry_line
from jobs.execution.signals import on_signals
from jobs.pretraining.similar_runs import differs_from_earlier
from jobs.study.folder import JobsFailed, Study, Terminated
from ssl_core.data.summary import summary
from ssl_core.errors import StorageError, UserError
from ssl_core.openmp import sleeping_when_contended
from ssl_core.storage.files import is_local
from ssl_core.storage.records import EncoderRecord, EvaluationRecord
from ssl_core.storage.retry import short_deadline

console = Console(stderr=True)


def show_plan(plan: StudyPlan, more: Collection[str] = ()) -> None:
    """Prints what a plan is about, `more` lines, how much of it is to be done, and how long trainings take.

    Nothing is done but the first steps of trainings, which are thrown away.
    """
    _say(*dict.fromkeys(summary(source) for source in plan.sources()), *more, *plan.outline(plan.jobs()))
    if line := plan.forecast():
        _say(line)


def _say(*lines: str) -> None:
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


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
    outline = plan.outline(jobs) if plan.evaluation else []
    _say(*read, *limits, *similar, *outline, plan.workload(jobs))
    for name in ("timm", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)
    trainings = {t.name: t.recipe.steps for t in plan.trainings}
    failed, watched = [], {job.name: trainings[job.name] for job in jobs if job.name in trainings}
    on_ray = plan.runtime.worker_range.max > 0
    with (
        ray_session(plan),
        ProgressMonitor(console, watched, len(jobs), plan.study.root if on_ray else None) as monitor,
        on_signals() as signal_received,
        nullcontext() if on_ray else sleeping_when_contended(),
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
    with session(address=runtime.address, timeout=runtime.cluster_timeout_s, notify=_say):
        kind = "GPU" if runtime.resolved_device() == "cuda" else "CPU"
        wait_for_resources(kind, runtime.worker_range.min, runtime.cluster_timeout_s, _say)
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
