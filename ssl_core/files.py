"""Writing that a crash cannot tear: everything is written beside its place and renamed into it."""

import json
import os
import threading
from pathlib import Path

from ssl_core.errors import BadInput


def write_bytes(path: Path, data: bytes) -> None:
    """Puts `data` at `path` so that a reader sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, value) -> None:
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def read_json(path: Path):
    """Raises BadInput if the file is not JSON: we never leave one half-written, so somebody else changed it."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise BadInput(f"{path} is damaged: {error}") from error
