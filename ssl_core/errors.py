"""Defines errors that are reported in one line, and helps with wording them."""

import difflib
from collections.abc import Collection, Iterable
from typing import ClassVar, Literal

# What kind of fault an error is, which decides whether trying again may help, see cluster/retry.py. "preempted": the
# job was asked to stop; "system": a process, a machine or a storage failed; "program": the job raised an exception of
# its own; "final": trying again would not help.
FaultKind = Literal["preempted", "system", "program", "final"]

CLOSE = 0.7  # least similarity, 0 to 1, by difflib: "gpu" is no misspelt "cpu"
NAMED = 3  # how many of several names a message lists


def closest(name: str, known: Collection[str]) -> str | None:
    """Returns the known name that a misspelled one probably stands for, whatever its case; None if none is close."""
    by_lower = {one.lower(): one for one in sorted(known, reverse=True)}
    return next((by_lower[found] for found in difflib.get_close_matches(name.lower(), by_lower, 1, CLOSE)), None)


def choose(name: str, known: Collection[str]) -> str:
    """Returns what a message says of a name that is not known: which one is probably wanted, or which there are."""
    close = closest(name, known)
    return f"did you mean {close}?" if close else f"there is {', '.join(known)}"


def some(names: Iterable[str], most: int = NAMED) -> str:
    """Lists names for a message: the first `most`, separated by commas, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def reason_of(error: BaseException) -> str:
    """Returns why something failed: what the error says, or where it says nothing the name of its class."""
    return str(error) or type(error).__name__


class TilespinError(Exception):
    """The base of errors whose message says all: the command line prints it as one line, without a traceback.

    Attributes:
        exit_code: What the command line then exits with.
        fault: What kind of fault it is if it ends a job.
    """

    exit_code: int = 1
    fault: ClassVar[FaultKind] = "program"


class UserError(TilespinError, ValueError):
    """The user gave a wrong path, option or dataset; the command line prints the one line and exits with 2."""

    fault = "final"
    exit_code = 2


class Diverged(TilespinError, RuntimeError):
    """The loss or the weights are no longer finite; the last good checkpoint is kept."""

    fault = "final"


class OutOfMemory(TilespinError, RuntimeError):
    """The device has too little memory for what was asked.

    The first time a process that is just ending may still hold some; twice at the same step it is too little.
    """


class DiskFull(TilespinError, RuntimeError):
    """There is no room to write; what was written before is kept."""

    fault = "final"


class ObjectNotFound(FileNotFoundError):
    """A store does not have an object, or not any more; a plain FileNotFoundError is a disk's."""


class StorageError(TilespinError):
    """A disk or store failed for longer than is waited for; no image is at fault, so training must not go on."""

    fault = "system"
