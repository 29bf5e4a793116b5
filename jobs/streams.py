"""The standard streams of a program whose work must not end because nobody reads what it says."""

import errno
import io
import os
import sys


class Lasting(io.FileIO):
    """What is written to a standard stream; from the first failure on it is dropped, and `error` says why."""

    error: OSError | None = None

    def write(self, data, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if isinstance(error, BlockingIOError):
                raise
            self.error = error
            silence(self.fileno())
            return len(data)


def last() -> None:
    """Makes the standard streams last: one that is closed leads nowhere, so that no other file takes its number; a
    pipe whose reader is gone, a terminal that was closed or a full disk ends what is shown, not what is done."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            silence(number)
        stream = getattr(sys, name)
        if number and stream is getattr(sys, f"__{name}__"):  # not one that a test listens to
            kept = dict(encoding=stream.encoding, errors=stream.errors) if stream else dict(errors="backslashreplace")
            raw = Lasting(number, "w", closefd=False)
            setattr(sys, name, io.TextIOWrapper(io.BufferedWriter(raw), line_buffering=True, **kept))


def silence(number: int) -> None:
    """What is written to this descriptor from now on, also by libraries and by processes that inherit it, is lost."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere == number:
        os.set_inheritable(number, True)
    else:
        os.dup2(nowhere, number)
        os.close(nowhere)


def lost() -> OSError | None:
    """Why what was printed is not where the user sent it; None if it is, or if whoever read it has had enough."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    error = raw.error if isinstance(raw, Lasting) else None
    return None if error is None or error.errno in (errno.EPIPE, errno.EIO) else error
