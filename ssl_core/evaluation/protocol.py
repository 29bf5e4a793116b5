"""Defines what every evaluation protocol is, and lists them all."""

from dataclasses import dataclass, field, is_dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

import ssl_core.evaluation.protocols
from ssl_core.data.dataset import Source
from ssl_core.plugins import Kind


class MapPoint(NamedTuple):
    """Is an image on a map of test images.

    Attributes:
        x: From 0, left, to 1.
        y: From 0, below, to 1.
        label: Its class; -1 if it has none, or several.
        cell: Where it is on the sheet beside the map: its cell in a square grid, counted row by row from the top.
    """

    x: float
    y: float
    label: int
    cell: int


@dataclass(frozen=True)
class Result:
    """Holds what a protocol has found.

    Attributes:
        numbers: Measures by name.
        correct: [n_test] bool, whether the answer for each test image is right; None for protocols without answers, or
            with several for an image.
        predicted: [n_test] int64, these answers: classes.
        draws: [draws] float32, the headline of images drawn with replacement, where it is no mean over images: see
            `bootstrap_map` and `bootstrap_miou`.
        chosen: What held-out data chose, such as a stage or a learning rate, and `val_score`, the accuracy (or mean
            average precision) there that chose.
        sheet: A picture for people, [h, w, 3] uint8.
        points: A map of test images, whose pictures are on `sheet`; empty for protocols that make none.
        notes: Sentences that say what these images do not allow to measure, and why.
    """

    numbers: dict[str, float]
    correct: np.ndarray | None = None
    chosen: dict = field(default_factory=dict)
    sheet: np.ndarray | None = None
    points: tuple[MapPoint, ...] = ()
    notes: tuple[str, ...] = ()
    predicted: np.ndarray | None = None
    draws: np.ndarray | None = None


class Protocol:
    """A way to evaluate a frozen encoder: a subclass of this, in a file in ssl_core/evaluation/protocols/ or a plug-in.

    Attributes:
        version: Part of its results' names; to be raised when numbers would change.
        on: What `run` gets. "features": `FrozenFeatures`, which all such protocols share; "encoder": a `FrozenEncoder`,
            the encoder itself with its images.
        needs_labels: Whether images must have labels.
        needs_masks: Whether they must have masks.
        multilabel: Whether images may have several, if it needs them; their main number is then `map`, the mean average
            precision.
        headline: The name among the result's numbers that stands in tables.
        higher_is_better: Whether a higher headline is the better one.
        Config: A frozen dataclass with the literature's hyperparameters as its defaults.
    """

    version: ClassVar[int]
    on: ClassVar[Literal["features", "encoder"]]
    needs_labels: ClassVar[bool]
    needs_masks: ClassVar[bool] = False
    multilabel: ClassVar[bool] = False
    headline: ClassVar[str]
    higher_is_better: ClassVar[bool]
    Config: ClassVar[type]

    def run(self, subject: Any, config: Any, seed: int) -> Result:
        """Evaluates an encoder.

        Args:
            subject: A `FrozenFeatures` or a `FrozenEncoder`, as `on` says.
            config: Of the class `Config`.
            seed: Decides all that is random.

        Raises:
            Diverged: If a training diverges whatever the learning rate.
            UserError: If there are too few images.
        """
        raise NotImplementedError


def _check(protocol: type[Protocol]) -> str | None:
    if protocol.on not in ("features", "encoder"):
        return f"it has on = {protocol.on!r}, expected 'features' or 'encoder'"
    return None if is_dataclass(protocol.Config) else "it needs a Config that is a dataclass"


REQUIRED = ("version", "on", "needs_labels", "headline", "higher_is_better", "Config", "run")
KIND = Kind("protocol", Protocol, ssl_core.evaluation.protocols, "tilespin.protocols", REQUIRED, _check)


def protocols() -> dict[str, Protocol]:
    """Returns every protocol, the built-in ones by the name of their file, then plug-ins.

    Raises:
        UserError: If a plug-in cannot be used, or two protocols are of one name.
    """
    return {name: protocol() for name, protocol in KIND.find().items()}


def is_accuracy(protocol: str) -> bool:
    """Returns whether a protocol's headline is the accuracy on all test images, or their mean intersection over union,
    which are shown in percent."""
    return protocols()[protocol].headline in ("top1", "miou")


def can_evaluate_on(source: Source, protocol: Protocol) -> bool:
    """Returns whether a dataset has the labels or the masks that a protocol needs."""
    if protocol.needs_masks:
        return source.masks is not None
    if protocol.needs_labels:
        return protocol.multilabel if source.multilabel else bool(source.classes)
    return True
