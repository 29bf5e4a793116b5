"""Jobs, of which some need others' results: what one is, how it ended, and running them one after the other here."""

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from cluster.heartbeat import Pulse, beating
from cluster.retry import Decision, Failed, Fault, cause_of, kind_of


@dataclass(frozen=True)
class Job:
    """`call(*args, *results of needs)`. It may run more than once, so what it writes must not depend on how often.

    An exception counts as the kind of fault that its class names in an attribute `fault`, see cluster/retry.py.
    """

    name: str
    call: Callable
    args: tuple = ()
    needs: tuple[str, ...] = ()  # names of jobs that come before it in the list
    cpus: float = 1
    gpus: float = 0
    stretch: float = 1  # how many times its room it takes while it runs, as far as there is more
    delegates: bool = False  # True: the room is taken by workers that the call starts, not by its own process
    fetch: bool = True  # False: the result is large and only handed on to the jobs that need it
    holds: int = 0  # bytes of that result, about


@dataclass(frozen=True)
class Outcome:
    """How a job ended; `error` is its traceback, or None if it succeeded."""

    name: str
    value: Any = None
    error: str | None = None
    because: str | None = None  # the job that failed before this one, which therefore did not run
    why: str | None = None  # one line


@dataclass(frozen=True)
class Again:
    """A job's attempt ended in a fault, and it will be tried again."""

    name: str
    fault: Fault
    decision: Decision
    attempt: int  # the one that comes


def check(jobs: list[Job]) -> None:
    """Raises ValueError if two jobs share a name, or one needs a job that does not come before it."""
    seen: set[str] = set()
    for job in jobs:
        if job.name in seen or not seen.issuperset(job.needs):
            raise ValueError(f"job {job.name!r} is there twice, or before one of {job.needs}")
        seen.add(job.name)


def run_here(jobs: list[Job], told_to_leave: Callable[[], bool] = lambda: False) -> Iterator[Outcome | Again]:
    """One after the other in this process, without Ray, until `told_to_leave`. What fails here is not tried again."""
    check(jobs)
    done: dict[str, Outcome] = {}
    for job in jobs:
        broken = next((done[need] for need in job.needs if done[need].error), None)
        if broken:
            outcome = Outcome(job.name, None, broken.error, broken.because or broken.name)
        elif told_to_leave():
            return
        else:
            with beating(Pulse(job.name)):
                value, fault = attempt(job.call, (*job.args, *(done[need].value for need in job.needs)))
            if fault and fault.kind == "preempted":
                return
            outcome = Outcome(job.name, value, fault and fault.text, why=fault and fault.cause)
        done[job.name] = outcome
        yield outcome
        for need in job.needs:  # large results go when their last user has run
            last = max(i for i, other in enumerate(jobs) if need in other.needs)
            if jobs[last] is job:
                done[need] = Outcome(need, None, done[need].error, done[need].because)


def attempt(call: Callable, args: tuple, pulse: Pulse | None = None) -> tuple[Any, Fault | None]:
    """-> (what `call` returns, the fault that it ended in or None)."""
    try:
        return call(*args), None
    except Failed as error:
        return None, error.fault
    except Exception as error:
        step = pulse.step if pulse else None
        return None, Fault(kind_of(error), cause_of(error), step, traceback.format_exc())
