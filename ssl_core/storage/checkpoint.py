"""Checkpoints: written beside and renamed, or in an object store data first, checksummed, and found again by looking.

A checkpoint is step-N.pt (torch.save of tensors and plain values) and step-N.json with its checksum, written last.
"""

import errno
import hashlib
import io
import math
import pickle  # for the name of its error: nothing is unpickled
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ssl_core.errors import UserError
from ssl_core.storage.files import glob_files, is_local, read_bytes, read_json, remove, write_bytes, write_json


@dataclass(frozen=True)
class Keep:
    """Which checkpoints stay: the newest `last`, and those of steps that `every` divides (0: none of them)."""

    last: int = 2  # the newest, and one more in case it is damaged
    every: int = 0

    def stays(self, step: int, newest: list[int]) -> bool:
        return step in newest[-self.last :] or (self.every > 0 and step % self.every == 0)


class Snapshot:
    """A copy of `state` in the CPU's memory that later steps do not change, to be saved while they are taken.

    From a GPU the copy is only ordered here, before the steps that follow; `save` waits for it.
    """

    def __init__(self, state: dict):
        self.state = _copy(state)
        self.copied = torch.cuda.Event() if torch.cuda.is_available() and torch.cuda.is_initialized() else None
        if self.copied:
            self.copied.record()

    def save(self, folder: Path, keep: "Keep") -> Path:
        """As `save` does."""
        if self.copied:
            self.copied.synchronize()
        return save(folder, self.state, keep)


def _copy(state: Any) -> Any:
    if isinstance(state, torch.Tensor):
        if state.is_cuda:
            return torch.empty_like(state, device="cpu", pin_memory=True).copy_(state.detach(), non_blocking=True)
        return state.detach().clone()
    if isinstance(state, dict):
        return {name: _copy(value) for name, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(_copy(value) for value in state)
    return state


def save(folder: Path, state: dict, keep: Keep = Keep()) -> Path:
    """Saves `state`, which has its "step", and drops the checkpoints that `keep` does not name and what a kill in the
    middle of saving left. One process writes to a folder."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getvalue()
    path = folder / f"step-{state['step']:09d}.pt"
    write_bytes(path, data)
    write_json(path.with_suffix(".json"), {"sha256": hashlib.sha256(data).hexdigest(), "step": state["step"]})
    _drop_old(folder, keep, state["step"])
    return path


def load_newest(folder: Path, at_most: float = math.inf) -> tuple[dict | None, list[Path]]:
    """-> (the newest state that verifies, of a step up to `at_most`, or None; the damaged checkpoints passed over).

    Raises StorageError, or OSError from a disk that gives nothing at the moment: what cannot be had now is not damaged.
    """
    damaged = []
    for manifest in sorted(glob_files(folder, "step-*.json"), key=_step_of, reverse=True):
        if _step_of(manifest) > at_most:
            continue
        path = manifest.with_suffix(".pt")
        try:
            data = read_bytes(path)
            if hashlib.sha256(data).hexdigest() == read_json(manifest)["sha256"]:
                return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True), damaged
        except (FileNotFoundError, UserError, KeyError, TypeError, RuntimeError, pickle.UnpicklingError):
            pass  # torn, not a manifest, or holding more than tensors and plain values
        except OSError as error:
            if error.errno != errno.EIO:  # which is a disk's name for damage
                raise
        damaged.append(path)
    return None, damaged


def _step_of(path: Path) -> int:
    digits = path.stem.removeprefix("step-")
    return int(digits) if digits.isdigit() else -1


def discard_damaged(damaged: list[Path]) -> None:
    """Removes checkpoints that `load_newest` passed over, or they would count among the newest that are kept."""
    for path in damaged:
        remove(path.with_suffix(".json"))
        remove(path)


def _drop_old(folder: Path, keep: Keep, newest: int) -> None:
    """What is of later steps than the newest is another writer's, and as good: it stays. A manifest goes before its
    data, so that no kill leaves one without the other."""
    manifests = {_step_of(path): path for path in glob_files(folder, "step-*.json")}
    past = sorted(step for step in manifests if step <= newest)
    gone = {step for step in past if not keep.stays(step, past)}
    for step in gone:
        remove(manifests[step])
    stems = {manifests[step].stem for step in manifests.keys() - gone}
    for path in [*glob_files(folder, "step-*"), *(folder.glob(".step-*") if is_local(folder) else ())]:
        if path.stem not in stems and not newest < _step_of(path):
            remove(path)
