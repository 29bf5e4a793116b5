"""Keeps a program working whose standard streams nobody reads any more."""

import errno
import io
import os
import select
import stat
import sys


class DurableStream(io.FileIO):
    """Writes to a standard stream; after the first failure it drops what is written, and `error` says why."""

    error: OSError | None = None
    reader_left = False  # that of a pipe, or the user of a terminal

    def write(self, data, /) -> int:
        try:
            while (written := super().write(data)) is None:  # another process has asked for streams that do not wait
                select.select([], [self], [])
            return written
        except OSError as error:
            terminal = stat.S_ISCHR(os.fstat(self.fileno()).st_mode)
            self.error, self.reader_left = error, error.errno == (errno.EIO if terminal else errno.EPIPE)
            silence(self.fileno())
            return len(data)


def make_durable() -> None:
    """Replaces the standard streams by ones that never fail.

    A stream that is closed leads nowhere, so that no other file takes its number. A pipe whose reader is gone, a
    terminal that was closed or a full disk ends what is shown, not what is done.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            silence(number)
        stream = getattr(sys, name)
        if number and stream is getattr(sys, f"__{name}__"):  # not one that a test listens to
            encoding, errors = (stream.encoding, stream.errors) if stream else (None, "backslashreplace")
            raw = io.BufferedWriter(DurableStream(number, "w", closefd=False))
            setattr(sys, name, io.TextIOWrapper(raw, encoding, errors, line_buffering=True))


def silence(number: int) -> None:
    """Discards what is written to this descriptor from now on, also by libraries and by processes that inherit it."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere == number:
        os.set_inheritable(number, True)
    else:
        os.dup2(nowhere, number)
        os.close(nowhere)


def _durable_stdout() -> DurableStream | None:
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw if isinstance(raw, DurableStream) else None


def reader_left() -> bool:
    """Returns whether nobody reads what is printed any more."""
    out = _durable_stdout()
    return out is not None and out.reader_left


def write_error() -> OSError | None:
    """Returns why what was printed is not where the user sent it.

    It is None if it is there, or if its reader has stopped reading.
    """
    out = _durable_stdout()
    return None if out is None or out.reader_left else out.error
