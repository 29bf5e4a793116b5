"""Reads, repairs and copies offline W&B runs.

Each time that a run is started it has a segment, the folder `wandb/offline-run-<time>-<id>/`. Records lie in
`run-<id>.wandb`, in the framing of LevelDB's logs: blocks of 32 KiB, and before every piece of a record its
checksum, length and kind.
"""

import hashlib
import shlex
import shutil
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ssl_core.storage.files import write_bytes

BLOCK, HEADER, PIECE = 32768, 7, 7  # bytes: of a block, of a file without records, of what is before a piece
WHOLE, FIRST, LAST = 1, 2, 4  # kinds of pieces; 3 is one in the middle
GROWTH = 1.1  # a file in a store is only ever written anew: each time it has grown by so much, not for every row


def records(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Yields every record and where it ends, up to the first that a crash tore or damaged."""
    position, record = HEADER, b""
    while position + PIECE <= len(data):
        space = BLOCK - position % BLOCK
        if space < PIECE:
            position += space
            continue
        checksum, length, kind = struct.unpack_from("<IHB", data, position)
        piece = data[position + PIECE : position + PIECE + length]
        if len(piece) < length or zlib.crc32(piece, zlib.crc32(bytes([kind]))) != checksum:
            return
        position += PIECE + length
        record = piece if kind in (WHOLE, FIRST) else record + piece
        if kind in (WHOLE, LAST):
            yield record, position


def complete_prefix(data: bytes) -> bytes:
    """Returns `data` up to the end of its last whole record; empty if it has none."""
    return data[: max((end for _, end in records(data)), default=0)]


def _parse(record: bytes) -> Any:
    """Returns the client's message in a record, of a class that is made only when its module is imported."""
    from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportAttributeAccessIssue] see above

    return Record.FromString(record)


def last_step(folder: Path, id: str) -> int:
    """Returns the last step in the history of run `id` among the segments below `folder`, online ones too; -1
    without any."""
    last = -1
    for file in folder.glob(f"wandb/*run-*/run-{id}.wandb"):
        for record, _ in records(file.read_bytes()):
            read = _parse(record)
            if read.WhichOneof("record_type") == "history":
                last = max(last, read.history.step.num)
    return last


def wait_for_end(folder: Path, id: str, seconds: float) -> None:
    """Waits until the record that ends run `id` is in the newest segment below `folder`.

    The client says that it has finished while its own process still writes.

    Raises:
        TimeoutError: If it is not there after `seconds`.
    """
    file = max(folder.glob(f"wandb/offline-run-*/run-{id}.wandb"))
    limit = time.monotonic() + seconds
    while True:
        *_, (last, _) = [(b"", 0), *records(file.read_bytes())]
        if _parse(last).WhichOneof("record_type") == "exit":
            return
        if time.monotonic() > limit:
            raise TimeoutError(f"{file} is not complete after {seconds} s")
        time.sleep(0.05)


def truncate_torn_tail(folder: Path, id: str = "*") -> None:
    """Cuts segments below the local `folder` behind their last whole record, and removes those without any.

    The client would stop there, and leave out the run's later segments. The writer must be dead. If it is only
    dying, what it still writes goes to the old file, and so nowhere: nobody who reads the segment from now on is
    surprised by another row.

    Args:
        folder: The folder.
        id: The run; default: all runs.
    """
    for file in folder.glob(f"wandb/offline-run-*/run-{id}.wandb"):
        if _mark(file).exists():
            continue
        if kept := complete_prefix(file.read_bytes()):
            write_bytes(file, kept)
        else:
            shutil.rmtree(file.parent)


def delete_run(folder: Path, id: str) -> None:
    """Removes the segments of run `id` below `folder`, which may be in a store."""
    for file in list(folder.glob(f"wandb/offline-run-*/run-{id}.wandb")):
        for inner in list(file.parent.glob("**/*")):
            if inner.is_file():
                inner.unlink()
        if isinstance(folder, Path):
            shutil.rmtree(file.parent)


def mark_synced(folder: Path, id: str) -> None:
    """Makes `wandb sync` leave out the segments of run `id`, whose rows come again by another way."""
    for file in folder.glob(f"wandb/offline-run-*/run-{id}.wandb"):
        _mark(file).write_bytes(b"")


def _mark(file: Path) -> Path:
    """Returns the path of the client's own mark of a segment that is uploaded."""
    return file.with_name(f"{file.name}.synced")


class Upload:
    """Copies the segments below a local folder to a store too, for when this machine is gone.

    Args:
        here: The local folder.
        there: The folder in the store.
    """

    def __init__(self, here: Path, there: Path):
        self.here, self.there = here / "wandb", there / "wandb"
        self.sent: dict[Path, int] = {}  # bytes

    def send(self, all: bool = False) -> None:
        """Uploads what has grown by a tenth; with `all`, what has grown by one byte. Pictures go before the rows
        that show them."""
        for kind in ("offline-run-*/files/**/*", "offline-run-*/*.wandb"):
            for file in self.here.glob(kind):
                if not file.is_file():
                    continue
                data = file.read_bytes()
                data = complete_prefix(data) if file.suffix == ".wandb" else data
                before = self.sent.get(file, 0)
                if len(data) > before * (1 if all else GROWTH):
                    copy = self.there.joinpath(*file.relative_to(self.here).parts)
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    copy.write_bytes(data)
                    self.sent[file] = len(data)


def fetched(folder: Path) -> Path:
    """Copies the segments that lie below `folder` in a store to a local folder, and returns it."""
    from ssl_core.storage.cache import folder as cache

    here = cache() / "wandb" / f"{folder.name}-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"
    for pattern in ("files/**/*", "*.wandb*"):
        for file in folder.glob(f"wandb/offline-run-*/{pattern}"):
            copy = here.joinpath(*file.parts[len(folder.parts) :])
            if file.is_file() and not (copy.exists() and copy.stat().st_size == file.stat().st_size):
                write_bytes(copy, file.read_bytes())
    return here


def sync_command(folder: Path) -> str | None:
    """Returns the command that uploads every offline run below `folder`, or None if there is none.

    Nothing may be running there.
    """
    if not isinstance(folder, Path):
        folder = fetched(folder)
    truncate_torn_tail(folder)
    found = any(folder.glob("wandb/offline-run-*"))
    return f"wandb sync {shlex.quote(str(folder))}/wandb/offline-run-*" if found else None
