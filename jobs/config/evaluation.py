"""How encoders are evaluated: protocols, labels and splits."""

from dataclasses import dataclass

from jobs.study.folder import Study
from ssl_core.errors import BadInput, closest
from ssl_core.evaluation import features
from ssl_core.evaluation.frozen_encoder import Splits
from ssl_core.storage.files import read_json


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How encoders are judged."""

    protocols: tuple[str, ...] = ("linear", "knn", "invariance", "semantics", "collapse", "retrieval")
    """which protocols to run"""
    labels: int = 12_000
    """labelled training images that a probe may use, held-out ones included; 0 for all"""
    held_out: float = 1 / 6
    """share of them that chooses stage and learning rate"""
    probe_seed: int = 0
    """decides which labelled images a probe uses, and its order"""

    @classmethod
    def told(cls, study: Study) -> "Evaluation | None":
        """How the study was last evaluated, or None."""
        told = read_json(study.file).get("evaluation")
        return cls(**{**told, "protocols": tuple(told["protocols"])}) if told else None

    def splits(self) -> Splits:
        return Splits(labels=self.labels, held_out=self.held_out)

    def check(self) -> None:
        """Raises BadInput for a protocol that does not exist or splits that leave nothing."""
        known = features.protocols()
        for name in self.protocols:
            if name not in known:
                hint = f"did you mean {close}? " if (close := closest(name, known)) else ""
                raise BadInput(f"--protocols {name}: {hint}there is {', '.join(known)}")
        if not self.protocols or len(set(self.protocols)) < len(self.protocols):
            raise BadInput(f"--protocols {' '.join(self.protocols)}: expected at least one, each once")
        if not 0 <= self.probe_seed < 2**31:
            raise BadInput(f"--probe-seed is {self.probe_seed}, expected 0 to 2**31 - 1")
        if not 0 < self.held_out < 1:
            raise BadInput(f"--held-out is {self.held_out}, expected a share between 0 and 1")
        if self.labels < 0:
            raise BadInput(f"--labels is {self.labels}, expected 0 (all) or more")
