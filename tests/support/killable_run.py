"""A training whose process dies, as far as a test can tell."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import ssl_core.evaluation.finetuning as finetuning
import ssl_core.storage.checkpoint as checkpoint


class Killed(Exception):
    """Instead of the end of the process."""


@contextmanager
def killed_at(step: int) -> Iterator[None]:
    """While this is open, each step of a training on labels leaves a checkpoint, and it dies once that of `step` is
    written; it must come so far."""
    save = checkpoint.save

    def saved(folder, state, keep):
        path = save(folder, state, keep)
        if state["step"] == step:
            raise Killed
        return path

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(finetuning, "CHECKPOINT_EVERY_S", 0.0)
        patch.setattr(checkpoint, "save", saved)
        yield
