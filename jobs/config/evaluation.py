"""Defines how encoders are evaluated: protocols, labels and splits."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, ClassVar

import tyro
from pydantic import BeforeValidator, TypeAdapter

from jobs.config.options import one_word
from jobs.config.recipe import resolve_data_path
from jobs.study.folder import Study
from ssl_core.data.dataset import Source, open_source
from ssl_core.errors import UserError, closest
from ssl_core.evaluation.frozen_encoder import Splits
from ssl_core.evaluation.protocol import can_evaluate_on
from ssl_core.evaluation.protocol import protocols as defined_protocols
from ssl_core.storage.records import EncoderIdentity

DENSE = "segmentation"  # the protocol for images with masks


@dataclass(frozen=True)
class TransferEntry:
    """Names a dataset that encoders are evaluated on.

    Attributes:
        data: The dataset, as --data names it.
        size: Side in pixels that its images are resized to; None: its own.
        protocols: Protocols for this dataset; none: those of the study.
    """

    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}

    data: str
    size: int | None = None
    protocols: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.data}@{self.size}" if self.size else self.data

    def document(self) -> Any:
        """Returns it as a study's file has it."""
        return {name: of for name, of in asdict(self).items() if of} if self.size or self.protocols else self.data

    @classmethod
    def parse(cls, value: Any) -> Any:
        """Makes one of DATA or DATA@SIZE; tables are left to pydantic."""
        if isinstance(value, dict) and isinstance(value.get("protocols"), list):
            return {**value, "protocols": tuple(value["protocols"])}  # pydantic takes no list here
        if not isinstance(value, str):
            return value
        data, at, size = value.rpartition("@")
        return cls(data, int(size)) if at and data and size.isdecimal() else cls(value)


Transfers = tuple[Annotated[TransferEntry, BeforeValidator(TransferEntry.parse), one_word(TransferEntry, "DATA")], ...]


def resolve_transfer(transfer: Transfers, size: int | None, protocols: tuple[str, ...]) -> tuple[TransferEntry, ...]:
    """Returns datasets with absolute paths and sizes, and with protocols of their own where masks ask for these.

    Args:
        transfer: The datasets.
        size: Side in pixels of the images of those that do not say; None: each dataset's own.
        protocols: Those of the study.

    Raises:
        UserError: If a dataset is there twice, or cannot be opened.
    """
    found = []
    for entry in transfer:
        source = open_source(entry.data, entry.size or size)
        fitting = protocols_on(source, protocols)
        own = entry.protocols or (fitting if fitting != protocols else ())
        found.append(replace(entry, data=resolve_data_path(entry.data), size=source.size, protocols=own))
    for one in found:
        if sum((other.data, other.size) == (one.data, one.size) for other in found) > 1:
            raise UserError(f"--transfer {one}: expected each dataset once")
    return tuple(found)


def protocols_on(source: Source, protocols: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the protocols for a dataset: where images have masks, segmentation in place of those that need labels."""
    known = defined_protocols()
    able = tuple(name for name in protocols if name not in known or can_evaluate_on(source, known[name]))
    if source.masks is None or able == protocols:
        return protocols
    return able if DENSE in able else (DENSE, *able)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Says how encoders are evaluated."""

    protocols: tuple[str, ...] = ("linear", "knn", "invariance", "semantic_similarity", "collapse", "retrieval")
    """protocols to run; on images with masks, segmentation takes the place of those that need labels; there are also
    equivariance, tsne, lowshot, attentive, nonlinear, finetune and lowshot_finetune"""
    num_labels: int = 12_000
    """labeled training images that a probe may use, those that are held out included; 0: all"""
    val_fraction: float = 1 / 6
    """share of these images that is held out to choose the stage and the learning rate"""
    probe_seed: int = 0
    """seed that decides which labeled images a probe uses, and in which order"""

    evaluate_at_protocols: tuple[str, ...] = ("knn", "invariance", "collapse")
    """protocols for the encoders that a study's --evaluate-at keeps: on each dataset those that it has labels for, and
    segmentation on images with masks"""

    transfer: tyro.conf.Suppress[tuple[TransferEntry, ...]] = ()  # datasets; none: what each encoder was trained on

    @classmethod
    def of_study(cls, study: Study) -> "Evaluation | None":
        """Returns how the study was last evaluated, or None if it never was."""
        saved = study.read().evaluation
        return TypeAdapter(cls).validate_python(saved) if saved else None

    def on(self, data: str, size: int) -> "Evaluation":
        """Returns how encoders are evaluated on one dataset, which may have protocols of its own."""
        for entry in self.transfer:
            if entry.protocols and (entry.data, entry.size or size) == (data, size):
                return replace(self, protocols=entry.protocols)
        return self

    def of(self, one: EncoderIdentity) -> "Evaluation":
        """Returns how one encoder is evaluated: one from the middle of its training has protocols of its own, of which
        those count that its dataset has labels or masks for."""
        if one.step is None:
            return self.on(one.data, one.size)
        return replace(self, protocols=tuple(dict.fromkeys((*self.evaluate_at_protocols, DENSE))))

    def fitted(self, datasets: Iterable[tuple[str, int | None]]) -> "Evaluation":
        """Returns it with the protocols for images with masks, see `protocols_on`, if all of these datasets have masks.

        Transfer datasets have protocols of their own.

        Args:
            datasets: Each dataset, as --data names it, with its images' side in pixels, or None for its own.
        """
        if self.transfer:
            return self
        found = {protocols_on(open_source(*one), self.protocols) for one in datasets}
        return replace(self, protocols=found.pop()) if len(found) == 1 else self

    def splits(self) -> Splits:
        """Returns how labeled images are split."""
        return Splits(num_labels=self.num_labels, val_fraction=self.val_fraction)

    def check(self) -> None:
        """Raises UserError for a protocol that does not exist or splits that leave nothing."""
        known = defined_protocols()
        given = {
            "--protocols": self.protocols,
            **{f"--transfer {entry}": entry.protocols for entry in self.transfer if entry.protocols},
            "--evaluate-at-protocols": self.evaluate_at_protocols,
        }
        for option, names in given.items():
            for name in names:
                if name not in known:
                    hint = f"did you mean {close}? " if (close := closest(name, known)) else ""
                    raise UserError(f"{option} {name}: {hint}there is {', '.join(known)}, and those of plug-ins")
            if not names or len(set(names)) < len(names):
                raise UserError(f"{option} {' '.join(names)}: expected at least one, each once")
        if not 0 <= self.probe_seed < 2**31:
            raise UserError(f"--probe-seed is {self.probe_seed}, expected 0 to 2**31 - 1")
        if not 0 < self.val_fraction < 1:
            raise UserError(f"--val-fraction is {self.val_fraction}, expected a share between 0 and 1")
        if self.num_labels < 0:
            raise UserError(f"--num-labels is {self.num_labels}, expected 0 (all) or more")
