"""A batch of images, as loaders deliver it."""

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """Images as the decoder left them, on the training device."""

    images: Tensor  # [b, height, width, 3] uint8
    ids: Tensor  # [b] int64, the image's row in its source
    epochs: Tensor  # [b] int64: a batch may straddle two epochs
    weights: Tensor  # [b] float32: 0 for an image that could not be decoded
    labels: Tensor  # [b] int64, -1 where there is none; only the supervised ceiling looks at them
