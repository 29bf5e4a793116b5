"""What can go wrong that is no fault of the program. `fault` says what trying again would help, see cluster/retry.py:
"final", nothing; "system", it may."""


class BadInput(ValueError):
    """A wrong path, option or dataset: the command line prints its one line and exits with 2."""

    fault = "final"


class Diverged(RuntimeError):
    """The loss or the weights are no longer finite; the last good checkpoint is kept."""

    fault = "final"


class OutOfMemory(RuntimeError):
    """The device has too little memory for what was asked. Once it may be that a dying process still holds some; twice
    at the same step it is too little."""


class DiskFull(RuntimeError):
    """There is no room to write; what was written before is kept."""

    fault = "final"


class Gone(FileNotFoundError):
    """An object that its store does not have, or not any more; other files that are missing are the disk's fault."""


class StoreFailed(Exception):
    """A storage that failed for longer than anyone waits: no fault of one image, so training must not go on."""

    fault = "system"
