"""Defines what study.json says of a study."""

from dataclasses import dataclass, field
from typing import Any

from ssl_core.storage.record import Record
from ssl_core.storage.records import EncoderIdentity


@dataclass(frozen=True, kw_only=True)
class CopiesRecord:
    """Says which test images are copies of training images.

    Attributes:
        digest: Of the dataset.
        test_images: How many test images there are.
        compared: Test images that were looked at.
        found: Of these, copies of training images.
        relabeled: Of these, such with another label there.
        pairs: Names of the first few, each with a training image of the same bytes.
        remote: Whether they lie in a store, from where nothing is fetched for this.
        near_compared: Whether near copies were looked for, too.
        near_found: How many other test images are near copies of training images.
        near_pairs: Names of the first few, each with a training image.
    """

    digest: str
    test_images: int
    compared: int
    found: int
    relabeled: int
    pairs: tuple[tuple[str, str], ...]
    remote: bool = False
    near_compared: bool = False
    near_found: int = 0
    near_pairs: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """Describes a short training that tried one learning rate.

    Attributes:
        run: The run's name, in the study's folder `tuning/`.
        lr: The learning rate.
        steps: Optimizer steps.
        macs: Multiply-accumulates of the encoder, forward and backward.
        seconds: Training time.
        loss: The last pretext loss.
        val_accuracy: Linear accuracy on held-out training images, by the dataset's name; empty without labels.
    """

    run: str
    lr: float
    steps: int
    macs: int
    seconds: float
    loss: float
    val_accuracy: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TuningRecord:
    """Says which learning rate was chosen for trainings that differ by their seed only, and from what.

    Attributes:
        task: The task, with the options that were given.
        encoder: The architecture.
        init: Where the encoder starts.
        steps: Optimizer steps of each trial.
        lr: The chosen learning rate.
        by: What chose it.
        trials: Those that were trained to their end, by rising learning rate.
        diverged: Learning rates whose training diverged.
    """

    task: str
    encoder: str
    init: str
    steps: int
    lr: float
    by: str
    trials: tuple[TrialRecord, ...]
    diverged: tuple[float, ...] = ()

    @property
    def at_edge(self) -> bool:
        """Returns whether the smallest or the largest rate was chosen, so that one beyond may be better."""
        return self.lr in (min(self._rates), max(self._rates))

    @property
    def _rates(self) -> list[float]:
        return [*(trial.lr for trial in self.trials), *self.diverged]


@dataclass(frozen=True, kw_only=True)
class StudyRecord(Record):
    """Describes a study.

    Attributes:
        token: Makes the ids of its W&B runs its own.
        tilespin: The version of the program.
        commit: Its git commit, with + if files differ; None outside a checkout.
        config: The options of `tilespin study`, if that made it.
        evaluation: The options of its last evaluation.
        sweep: The options of `tilespin sweep`, if that made it.
        compared: The folders of the studies that it compares.
        encoders: Encoders from elsewhere that were added to it.
        datasets: Digest of each dataset that it evaluates on, by what --data named.
        copies: Test images that are copies, by what --data named.
        caveats: What limits its numbers, in sentences.
        tuning: Learning rates that it chose for its trainings; empty if it trains by the tasks' own.
        wandb_report: URL of its report in W&B.
    """

    token: str
    tilespin: str
    commit: str | None
    config: dict[str, Any] | None = None
    evaluation: dict[str, Any] | None = None
    sweep: dict[str, Any] | None = None
    compared: tuple[str, ...] = ()
    encoders: tuple[EncoderIdentity, ...] = ()
    datasets: dict[str, str] = field(default_factory=dict)
    copies: dict[str, CopiesRecord] = field(default_factory=dict)
    caveats: tuple[str, ...] = ()
    tuning: tuple[TuningRecord, ...] = ()
    wandb_report: str | None = None
