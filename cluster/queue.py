"""A graph of jobs run side by side: on Ray, which restarts those that a machine takes with it, or in this process."""

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

RETRIES = 3  # for faults of a machine; an exception of the job itself is final


@dataclass(frozen=True)
class Job:
    """`call(*args, *results of needs)`. It may run more than once, so what it writes must not depend on how often."""

    name: str
    call: Callable
    args: tuple = ()
    needs: tuple[str, ...] = ()  # names of jobs that come before it in the list
    cpus: float = 1
    gpus: float = 0
    delegates: bool = False  # True: the room is taken by workers that the call starts, not by its own process
    fetch: bool = True  # False: the result is large and only handed on to the jobs that need it


@dataclass(frozen=True)
class Outcome:
    """How a job ended; `error` is its traceback, or None if it succeeded."""

    name: str
    value: Any = None
    error: str | None = None
    because: str | None = None  # the job that failed before this one, which therefore did not run


def check(jobs: list[Job]) -> None:
    """Raises ValueError if two jobs share a name, or one needs a job that does not come before it."""
    seen: set[str] = set()
    for job in jobs:
        if job.name in seen or not seen.issuperset(job.needs):
            raise ValueError(f"job {job.name!r} is there twice, or before one of {job.needs}")
        seen.add(job.name)


def run_here(jobs: list[Job]) -> Iterator[Outcome]:
    """One after the other in this process, without Ray."""
    check(jobs)
    done: dict[str, Outcome] = {}
    for job in jobs:
        broken = next((done[need] for need in job.needs if done[need].error), None)
        if broken:
            outcome = Outcome(job.name, None, broken.error, broken.because or broken.name)
        else:
            try:
                outcome = Outcome(job.name, job.call(*job.args, *(done[need].value for need in job.needs)))
            except Exception:
                outcome = Outcome(job.name, None, traceback.format_exc())
        done[job.name] = outcome
        yield outcome
        for need in job.needs:  # large results go when their last user has run
            last = max(i for i, other in enumerate(jobs) if need in other.needs)
            if jobs[last] is job:
                done[need] = Outcome(need, None, done[need].error, done[need].because)


def run_on_ray(jobs: list[Job]) -> Iterator[Outcome]:
    """As Ray tasks, as many at once as the cluster has room for; outcomes come as the jobs end.

    Needs an open session. Of the jobs that can start, the first in the list does: Ray on its own promises no
    order, and a long job that starts last holds up everything. Results travel through Ray's object store.
    """
    import ray

    check(jobs)
    waiting = list(jobs)
    results: dict[str, Any] = {}  # of jobs that ended and are still needed
    running: dict[Any, tuple[Job, Any]] = {}
    failed: dict[str, tuple[str, str]] = {}  # job: (the job that it failed because of, traceback)
    while waiting or running:
        for job in list(waiting):
            broken = next((failed[need] for need in job.needs if need in failed), None)
            if broken:
                waiting.remove(job)
                failed[job.name] = broken
                yield Outcome(job.name, None, broken[1], broken[0])
            elif all(need in results for need in job.needs) and _fits(job, [one for one, _ in running.values()]):
                waiting.remove(job)
                task = ray.remote(_call).options(
                    name=job.name, num_cpus=0 if job.delegates else job.cpus, num_returns=2, max_retries=RETRIES,
                    num_gpus=0 if job.delegates else job.gpus, scheduling_strategy="SPREAD",
                )  # fmt: skip
                ending, result = task.remote(job.call, job.args, job.fetch, *(results[need] for need in job.needs))
                running[ending] = job, result
        if not running:
            continue
        (ready,), _ = ray.wait(list(running), num_returns=1)
        job, result = running.pop(ready)
        try:
            value = ray.get(ready)
        except Exception as error:
            failed[job.name] = (job.name, str(error))
            yield Outcome(job.name, None, str(error))
        else:
            results[job.name] = result
            yield Outcome(job.name, value)
        needed = {need for one in [*waiting, *(one for one, _ in running.values())] for need in one.needs}
        results = {name: ref for name, ref in results.items() if name in needed}


def _fits(job: Job, running: list[Job]) -> bool:
    """Whether the cluster has room for one more; a job that never fits is handed to Ray when nothing else runs."""
    import ray

    total = ray.cluster_resources()
    cpus = sum(one.cpus for one in running) + job.cpus
    gpus = sum(one.gpus for one in running) + job.gpus
    return not running or (cpus <= total.get("CPU", 0) and gpus <= total.get("GPU", 0))


def _call(call: Callable, args: tuple, fetch: bool, *needed) -> tuple[Any, Any]:
    """-> (what the driver gets, what later jobs get): a large result need not travel to the driver."""
    value = call(*args, *needed)
    return (value if fetch else None), value
