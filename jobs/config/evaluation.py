"""Defines how encoders are evaluated: protocols, labels and splits."""

from dataclasses import dataclass

from jobs.study.folder import Study
from ssl_core.errors import UserError, closest
from ssl_core.evaluation.frozen_encoder import Splits
from ssl_core.evaluation.protocol import protocols


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Says how encoders are evaluated."""

    protocols: tuple[str, ...] = ("linear", "knn", "invariance", "semantic_similarity", "collapse", "retrieval")
    """protocols to run; there are also lowshot, nonlinear, finetune and lowshot_finetune"""
    num_labels: int = 12_000
    """labeled training images that a probe may use, those that are held out included; 0: all"""
    val_fraction: float = 1 / 6
    """share of these images that is held out to choose the stage and the learning rate"""
    probe_seed: int = 0
    """seed that decides which labeled images a probe uses, and in which order"""

    @classmethod
    def of_study(cls, study: Study) -> "Evaluation | None":
        """Returns how the study was last evaluated, or None if it never was."""
        saved = study.read().evaluation
        return cls(**{**saved, "protocols": tuple(saved["protocols"])}) if saved else None

    def splits(self) -> Splits:
        """Returns how labeled images are split."""
        return Splits(num_labels=self.num_labels, val_fraction=self.val_fraction)

    def check(self) -> None:
        """Raises UserError for a protocol that does not exist or splits that leave nothing."""
        known = protocols()
        for name in self.protocols:
            if name not in known:
                hint = f"did you mean {close}? " if (close := closest(name, known)) else ""
                raise UserError(f"--protocols {name}: {hint}there is {', '.join(known)}, and those of plug-ins")
        if not self.protocols or len(set(self.protocols)) < len(self.protocols):
            raise UserError(f"--protocols {' '.join(self.protocols)}: expected at least one, each once")
        if not 0 <= self.probe_seed < 2**31:
            raise UserError(f"--probe-seed is {self.probe_seed}, expected 0 to 2**31 - 1")
        if not 0 < self.val_fraction < 1:
            raise UserError(f"--val-fraction is {self.val_fraction}, expected a share between 0 and 1")
        if self.num_labels < 0:
            raise UserError(f"--num-labels is {self.num_labels}, expected 0 (all) or more")
