"""Decides what to do after a fault, from the faults so far and nothing else."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ssl_core.errors import FaultKind, TilespinError

# Attempts in a row without progress until a job is given up, by what went wrong last. Where there is progress between
# two faults the count begins anew: a run of weeks may meet any number of them.
MAX_ATTEMPTS: dict[FaultKind, int] = {"preempted": 50, "system": 6, "program": 3, "final": 1}
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0  # seconds before another attempt after a system's fault; they double


@dataclass(frozen=True)
class Fault:
    """Describes why an attempt of a job ended.

    Attributes:
        kind: What kind of fault it is.
        cause: The cause in one line.
        step: The furthest step that the attempt reached; None for a job without steps.
        text: The traceback.
        node: The id of the machine where it happened, if known.
    """

    kind: FaultKind
    cause: str
    step: int | None = None
    text: str = ""
    node: str = ""

    def __str__(self) -> str:
        return self.cause + (f" (at step {self.step})" if self.step is not None else "")


@dataclass(frozen=True)
class Decision:
    """Says whether to try again, after how many seconds, and why."""

    retry: bool
    wait: float
    reason: str


def decide(faults: Sequence[Fault]) -> Decision:
    """Decides what to do after the last of `faults`, which are all of one job, in order."""
    last = faults[-1]
    if last.kind == "final":
        return Decision(False, 0, str(last))
    before = [fault for fault in faults[:-1] if fault.kind == "program"]
    if last.kind == "program" and before and _is_same_error(before[-1], last):
        return Decision(False, 0, f"the same error twice: {last}")
    same_kind = [fault for fault in _since_progress(faults) if fault.kind == last.kind]
    if len(same_kind) >= MAX_ATTEMPTS[last.kind]:
        return Decision(False, 0, f"{len(same_kind)} times without progress: {last}")
    wait = min(FIRST_WAIT_S * 2 ** (len(same_kind) - 1), LONGEST_WAIT_S) if last.kind == "system" else 0
    return Decision(True, wait, str(last))


def _since_progress(faults: Sequence[Fault]) -> Sequence[Fault]:
    """Returns the last fault that came further than all before it, and those after it."""
    furthest, start = -1, 0
    for i, fault in enumerate(faults):
        if fault.step is not None and fault.step > furthest:
            furthest, start = fault.step, i
    return faults[start:]


def _is_same_error(one: Fault, other: Fault) -> bool:
    """Returns whether both are the same error at the same step, whatever addresses and process numbers they name."""
    plain = [re.sub(r"0x[0-9a-f]+|\d+", "#", fault.cause) for fault in (one, other)]
    return one.step == other.step and plain[0] == plain[1]


class JobFault(RuntimeError):
    """Ends an attempt of a job with a fault of which the kind is known already."""

    def __init__(self, fault: Fault):
        super().__init__(fault.cause)
        self.fault = fault

    def __reduce__(self):
        return JobFault, (self.fault,)


class Preempted(TilespinError, RuntimeError):
    """Says that a job was asked to stop, and has saved what it had."""

    fault = "preempted"


def fault_kind(error: BaseException) -> FaultKind:
    """Returns what kind of fault an exception is: what its class says, or "program" for one of another library."""
    return error.fault if isinstance(error, TilespinError) else "program"


def describe_error(error: BaseException) -> str:
    """Returns one line that says what happened."""
    message = " ".join(str(error).split())
    return message if fault_kind(error) in ("final", "preempted") and message else f"{type(error).__name__}: {message}"
