"""Counts how far what pixels are taken for overlaps with what they show."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ssl_core.data.masks import VOID
from ssl_core.evaluation.bootstrap import bootstrap_miou


@dataclass(frozen=True)
class Overlaps:
    """Holds pixel counts of images by class, without pixels of no class.

    Attributes:
        intersections: [n, classes] int64, pixels of a class that are taken for it.
        predicted: [n, classes] int64, pixels that are taken for it.
        truth: [n, classes] int64, pixels of it.
    """

    intersections: np.ndarray
    predicted: np.ndarray
    truth: np.ndarray

    @property
    def unions(self) -> np.ndarray:
        """Returns how many pixels are of a class or are taken for it, [n, classes] int64."""
        return self.predicted + self.truth - self.intersections

    @property
    def present(self) -> np.ndarray:
        """Returns the classes of which an image has a pixel, [k] int64."""
        return np.flatnonzero(self.truth.sum(0))

    def ious(self) -> np.ndarray:
        """Returns the intersection over union of each class that is `present`, both summed over images: [k]."""
        return (self.intersections.sum(0) / np.maximum(self.unions.sum(0), 1))[self.present]

    def miou(self) -> float:
        """Returns the mean of `ious`; 0 if all pixels are of no class."""
        return float(self.ious().mean()) if len(self.present) else 0.0

    def pixel_accuracy(self) -> float:
        """Returns the share of pixels that are taken for what they are; 0 if all are of no class."""
        return float(self.intersections.sum() / max(1, self.truth.sum()))

    def draws(self) -> np.ndarray:
        """Returns `miou` of each of many draws of images, see `bootstrap_miou`."""
        return bootstrap_miou(self.intersections, self.unions, self.truth)


def count_overlaps(predicted: Tensor, truth: Tensor, classes: int) -> Overlaps:
    """Counts pixels of images by class.

    Args:
        predicted: [n, ...] int64, what each pixel is taken for.
        truth: [n, ...] uint8, what it is, or VOID.
        classes: How many there are.
    """
    n = len(truth)
    predicted, truth = predicted.reshape(n, -1), truth.reshape(n, -1).long()
    known = truth != VOID
    image = torch.arange(n, device=truth.device)[:, None].expand_as(truth) * classes

    def count(values: Tensor, which: Tensor) -> np.ndarray:
        return torch.bincount((values + image)[which], minlength=n * classes).view(n, classes).cpu().numpy()

    return Overlaps(count(truth, known & (predicted == truth)), count(predicted, known), count(truth, known))


def joined(parts: Sequence[Overlaps]) -> Overlaps:
    """Returns the counts of the images of several parts, in their order."""
    fields = ("intersections", "predicted", "truth")
    return Overlaps(*(np.concatenate([getattr(part, name) for part in parts]) for name in fields))
