"""Checkpoints: written beside and renamed, checksummed, and found again by looking.

A checkpoint is step-N.pt (torch.save of tensors and plain values) and step-N.json with its checksum, written last.
"""

import hashlib
import io
import pickle  # for the name of its error: nothing is unpickled
from pathlib import Path

import torch

from ssl_core.files import read_json, write_bytes, write_json

KEEP = 2  # the newest, and one more in case it is damaged


def save(folder: Path, state: dict) -> Path:
    """Saves `state`, which has its "step", and drops all but the newest KEEP checkpoints and what a kill in the
    middle of saving left. One process writes to a folder."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getvalue()
    path = folder / f"step-{state['step']:09d}.pt"
    write_bytes(path, data)
    write_json(path.with_suffix(".json"), {"sha256": hashlib.sha256(data).hexdigest(), "step": state["step"]})
    kept = {manifest.stem for manifest in sorted(folder.glob("step-*.json"))[-KEEP:]}
    for old in [*folder.glob("step-*"), *folder.glob(".step-*")]:
        if old.stem not in kept:
            old.unlink(missing_ok=True)
    return path


def newest(folder: Path) -> tuple[dict | None, list[Path]]:
    """-> (the newest state that verifies or None, the damaged checkpoints that were passed over)."""
    damaged = []
    for manifest in sorted(folder.glob("step-*.json"), reverse=True):
        path = manifest.with_suffix(".pt")
        try:
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() == read_json(manifest)["sha256"]:
                return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True), damaged
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, pickle.UnpicklingError):
            pass  # torn, not a manifest, or holding more than tensors and plain values
        damaged.append(path)
    return None, damaged
