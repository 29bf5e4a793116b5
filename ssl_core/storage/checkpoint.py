"""Checkpoints: written whole, checksummed, and found again by listing their folder.

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
from ssl_core.storage.files import glob_files, is_local, read_bytes, remove, write_bytes
from ssl_core.storage.record import OtherVersion
from ssl_core.storage.records import CheckpointManifest


@dataclass(frozen=True)
class Keep:
    """Says which checkpoints stay when another is saved.

    Attributes:
        last: How many of the newest; by default one more than needed, in case the newest is damaged.
        every: Those of steps that this divides stay too; 0: none of them.
    """

    last: int = 2
    every: int = 0

    def stays(self, step: int, newest: list[int]) -> bool:
        """Returns whether the checkpoint of `step` stays, where `newest` are the steps of all, in ascending order."""
        return step in newest[-self.last :] or (self.every > 0 and step % self.every == 0)


class Snapshot:
    """Copies a state into the CPU's memory, so that it can be saved while later steps change the original.

    From a GPU the copy is only enqueued here, ahead of the steps that follow; `save` waits for it.

    Args:
        state: What `save` of this module takes: dicts, lists and tuples of tensors and plain values.
    """

    def __init__(self, state: dict):
        self.state = _copy(state)
        self.copied = torch.cuda.Event() if torch.cuda.is_available() and torch.cuda.is_initialized() else None
        if self.copied:
            self.copied.record()

    def save(self, folder: Path, keep: Keep) -> Path:
        """Saves the copied state as the function `save` of this module does, and returns the checkpoint's path."""
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
    """Saves a checkpoint, then removes those that are not kept and what a kill in the middle of saving left.

    Only one process may write to a folder.

    Args:
        folder: Where checkpoints lie, on a disk or in an object store.
        state: Dicts, lists and tuples of tensors and plain values; its "step" names the checkpoint.
        keep: Which of the older checkpoints stay.

    Returns:
        The path of the data, step-N.pt.

    Raises:
        OSError: If a disk cannot be written.
        StorageError: If an object store failed for longer than is waited for.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getvalue()
    path = folder / f"step-{state['step']:09d}.pt"
    write_bytes(path, data)
    CheckpointManifest(step=state["step"], sha256=hashlib.sha256(data).hexdigest()).write(path.with_suffix(".json"))
    _drop_old(folder, keep, state["step"])
    return path


def load_newest(folder: Path, at_most: float = math.inf) -> tuple[dict | None, list[Path]]:
    """Loads the newest checkpoint that is not damaged.

    Args:
        folder: Where checkpoints lie, on a disk or in an object store.
        at_most: Those of later steps are passed over.

    Returns:
        The state, with its tensors in the CPU's memory, or None if there is no good one; and the paths of the damaged
        checkpoints that are newer.

    Raises:
        OtherVersion: If a checkpoint is of a newer or an older version of this program.
        OSError: If a disk cannot be read at the moment, which does not make a checkpoint damaged.
        StorageError: If an object store failed for longer than is waited for.
    """
    damaged = []
    for manifest in sorted(glob_files(folder, "step-*.json"), key=_step_of, reverse=True):
        if _step_of(manifest) > at_most:
            continue
        path = manifest.with_suffix(".pt")
        try:
            data = read_bytes(path)
            if hashlib.sha256(data).hexdigest() == CheckpointManifest.read(manifest).sha256:
                return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True), damaged
        except OtherVersion:
            raise
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
    """Removes the damaged checkpoints that `load_newest` lists, or they would count among the newest that are kept."""
    for path in damaged:
        remove(path.with_suffix(".json"))
        remove(path)


def _drop_old(folder: Path, keep: Keep, newest: int) -> None:
    """Removes the checkpoints up to step `newest` that are not kept, and files that belong to none.

    What is of later steps than the newest is another writer's, and as good: it stays. A manifest goes before its data,
    so that no kill leaves one without the other.
    """
    manifests = {_step_of(path): path for path in glob_files(folder, "step-*.json")}
    past = sorted(step for step in manifests if step <= newest)
    gone = {step for step in past if not keep.stays(step, past)}
    for step in gone:
        remove(manifests[step])
    stems = {manifests[step].stem for step in manifests.keys() - gone}
    for path in [*glob_files(folder, "step-*"), *(folder.glob(".step-*") if is_local(folder) else ())]:
        if path.stem not in stems and not newest < _step_of(path):
            remove(path)
