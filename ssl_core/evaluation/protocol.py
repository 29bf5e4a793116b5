"""Defines what every evaluation protocol is, and lists them all."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

import ssl_core.evaluation.protocols
from ssl_core.plugins import modules, subclass_in


@dataclass(frozen=True)
class Result:
    """Holds what a protocol has found.

    Attributes:
        numbers: Measures by name.
        correct: [n_test] bool, whether the answer for each test image is right; None for protocols without answers.
        chosen: What held-out data chose, such as a stage or a learning rate.
        sheet: A picture for people, [h, w, 3] uint8.
        notes: Sentences that say what these images do not allow to measure, and why.
    """

    numbers: dict[str, float]
    correct: np.ndarray | None = None
    chosen: dict = field(default_factory=dict)
    sheet: np.ndarray | None = None
    notes: tuple[str, ...] = ()


class Protocol:
    """A way to evaluate a frozen encoder: one file in ssl_core/evaluation/protocols/ with one subclass of this.

    Attributes:
        version: Part of its results' names; to be raised when numbers would change.
        on: What `run` gets. "features": `FrozenFeatures`, which all such protocols share; "encoder": a `FrozenEncoder`,
            the encoder itself with its images.
        needs_labels: Whether images must have labels.
        headline: The name among the result's numbers that stands in tables.
        higher_is_better: Whether a higher headline is the better one.
        Config: A frozen dataclass with the literature's hyperparameters as its defaults.
    """

    version: ClassVar[int]
    on: ClassVar[Literal["features", "encoder"]]
    needs_labels: ClassVar[bool]
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


def protocols() -> dict[str, Protocol]:
    """Returns every protocol by the name of its file."""
    found = {name: subclass_in(module, Protocol) for name, module in modules(ssl_core.evaluation.protocols).items()}
    return {name: protocol() for name, protocol in found.items() if protocol is not None}


def is_accuracy(protocol: str) -> bool:
    """Returns whether a protocol's headline is the accuracy on all test images, which is shown in percent."""
    return protocols()[protocol].headline == "top1"
