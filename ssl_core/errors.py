"""What a person can put right, as opposed to a fault of the program."""


class BadInput(ValueError):
    """A wrong path, option or dataset: the command line prints its one line and exits with 2."""


class Diverged(RuntimeError):
    """The loss or the weights are no longer finite; the last good checkpoint is kept."""


class Gone(FileNotFoundError):
    """An object that its store does not have, or not any more; other files that are missing are the disk's fault."""


class StoreFailed(Exception):
    """An object store that failed for longer than anyone waits: no fault of one image, so training must not go on."""
