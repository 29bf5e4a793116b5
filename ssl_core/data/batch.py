"""Batches of images, as loaders deliver them."""

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """A batch of images, decoded and cut but not normalized, on the training device.

    Attributes:
        images: [b, height, width, 3] uint8.
        ids: [b] int64: the image's row in its split.
        epochs: [b] int64: a batch may belong to two epochs.
        weights: [b] float32: 0 for an image that could not be decoded.
        labels: [b] int64, -1 where there is none, or [b, classes] bool; only supervised training looks at them.
    """

    images: Tensor
    ids: Tensor
    epochs: Tensor
    weights: Tensor
    labels: Tensor
