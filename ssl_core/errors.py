"""What can go wrong that is no fault of the program. `fault` says what trying again would help, see cluster/retry.py:
"final", nothing; "system", it may. `exit_code` is the command line's, which then prints one line and no traceback."""

import difflib
from collections.abc import Collection, Iterable

CLOSE = 0.7  # of 1, by difflib: "gpu" is no misspelt "cpu"
NAMED = 3  # of several things that a message names


def closest(name: str, known: Collection[str]) -> str | None:
    """The one of `known` that `name` is probably to be, whatever its case; None if none is close."""
    by_lower = {one.lower(): one for one in sorted(known, reverse=True)}
    return next((by_lower[found] for found in difflib.get_close_matches(name.lower(), by_lower, 1, CLOSE)), None)


def choose(name: str, known: Collection[str]) -> str:
    """What to say of a name that is not `known`: which one is probably wanted, or else which there are."""
    close = closest(name, known)
    return f"did you mean {close}?" if close else f"there is {', '.join(known)}"


def some(names: Iterable[str], most: int = NAMED) -> str:
    """The first of `names`, and how many there are beside them."""
    names = list(names)
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


class UserError(ValueError):
    """A wrong path, option or dataset: the command line prints its one line and exits with 2."""

    fault = "final"
    exit_code = 2


class Diverged(RuntimeError):
    """The loss or the weights are no longer finite; the last good checkpoint is kept."""

    fault = "final"
    exit_code = 1


class OutOfMemory(RuntimeError):
    """The device has too little memory for what was asked. Once it may be that a dying process still holds some; twice
    at the same step it is too little."""


class DiskFull(RuntimeError):
    """There is no room to write; what was written before is kept."""

    fault = "final"
    exit_code = 1


class ObjectNotFound(FileNotFoundError):
    """An object that its store does not have, or not any more; other files that are missing are the disk's fault."""


class StorageError(Exception):
    """A storage that failed for longer than anyone waits: no fault of one image, so training must not go on."""

    fault = "system"
    exit_code = 1
