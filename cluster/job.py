"""Defines jobs, of which some need others' results, and how they end, and runs them one after the other in this
process."""

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from cluster.heartbeat import Heartbeat, sending_heartbeats
from cluster.retry import Decision, Fault, JobFault, describe_error, fault_kind


def never() -> bool:
    """Returns False."""
    return False


@dataclass(frozen=True)
class Job:
    """Describes a call of `call(*args, *results of needs)`, which may run more than once.

    What it writes must therefore not depend on how often it runs. An exception counts as the kind of fault that its
    class names, see TilespinError and cluster/retry.py.
    """

    name: str
    call: Callable
    args: tuple = ()
    needs: tuple[str, ...] = ()  # names of jobs that come before it in the list
    cpus: float = 1
    gpus: float = 0
    scale_up: float = 1  # how many times its room it takes while it runs, as far as there is more
    starts_workers: bool = False  # True: the room is taken by workers that the call starts, not by its own process
    fetch: bool = True  # False: the result is large and only handed on to the jobs that need it
    result_bytes: int = 0  # bytes of that result, about
    kind: str = ""  # what it is, for whoever counts jobs
    needs_success: bool = True  # False: it runs after those that it needs however they end, with None for a failed one
    # says whether what it works on is there already: it then begins before those that it needs have ended, or although
    # they failed, with None for each
    ready: Callable[[], bool] = never


@dataclass(frozen=True)
class Outcome:
    """Says how a job ended; `error` is its traceback, or None if it succeeded."""

    name: str
    value: Any = None
    error: str | None = None
    failed_need: str | None = None  # the job that failed before this one, which therefore did not run
    reason: str | None = None  # one line


@dataclass(frozen=True)
class Retrying:
    """Says that an attempt of a job ended in a fault and that the job will be tried again."""

    name: str
    fault: Fault
    decision: Decision
    attempt: int  # the one that comes


def check_jobs(jobs: list[Job]) -> None:
    """Raises ValueError if two jobs share a name, or one needs a job that does not come before it."""
    seen: set[str] = set()
    for job in jobs:
        if job.name in seen or not seen.issuperset(job.needs):
            raise ValueError(f"job {job.name!r} is there twice, or before one of {job.needs}")
        seen.add(job.name)


def run_here(
    jobs: list[Job],
    stop_requested: Callable[[], bool] = lambda: False,
    on_metrics: Callable[[str, dict[str, Any]], object] = lambda name, metrics: None,
) -> Iterator[Outcome | Retrying]:
    """Runs jobs one after the other in this process, without Ray. What fails here is not tried again.

    Args:
        jobs: The jobs, each after those that it needs.
        stop_requested: Is asked before each job; once it returns True, no more jobs begin.
        on_metrics: Is called with a job's name and the metrics that it reports, whenever it does.

    Yields:
        The outcome of each job, in order.

    Raises:
        ValueError: If the list is not as `check_jobs` wants it.
    """
    check_jobs(jobs)
    done: dict[str, Outcome] = {}
    for job in jobs:
        broken = next((done[need] for need in job.needs if job.needs_success and done[need].error), None)
        if broken and not job.ready():
            outcome = Outcome(job.name, None, broken.error, broken.failed_need or broken.name)
        elif stop_requested():
            return
        else:
            with sending_heartbeats(Heartbeat(job.name, on_metrics=on_metrics)):
                value, fault = run_attempt(job.call, (*job.args, *(done[need].value for need in job.needs)))
            if fault and fault.kind == "preempted":
                return
            outcome = Outcome(job.name, value, fault and fault.text, reason=fault and fault.cause)
        done[job.name] = outcome
        yield outcome
        for need in job.needs:  # large results go when their last user has run
            last = max(i for i, other in enumerate(jobs) if need in other.needs)
            if jobs[last] is job:
                done[need] = Outcome(need, None, done[need].error, done[need].failed_need)


def run_attempt(call: Callable, args: tuple, heartbeat: Heartbeat | None = None) -> tuple[Any, Fault | None]:
    """Calls `call(*args)` and returns what it returned and the fault that it ended in, or None."""
    try:
        return call(*args), None
    except JobFault as error:
        return None, error.fault
    except Exception as error:
        step = heartbeat.step if heartbeat else None
        return None, Fault(fault_kind(error), describe_error(error), step, traceback.format_exc())
