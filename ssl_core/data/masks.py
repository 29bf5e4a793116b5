"""The masks of a dataset's images, which say of each pixel what it shows."""

from dataclasses import dataclass

import numpy as np

from ssl_core.data.split import Split

VOID = 255  # in a mask: a pixel of no class, which neither trains nor counts


@dataclass(frozen=True)
class Masks:
    """The masks of a dataset's images, as files of one number a pixel; they are read by ssl_core/data/mask_reading.py.

    Attributes:
        train: The masks of the training images, in their order.
        test: Those of the test images.
        classes: Their names by number.
        zero_is_void: Whether files have 0 for no class and 1 for the first one, as those of ADE20K have.
        pixels: By part, "train" and "test": how many pixels of its masks are of each class, and last of none,
            [classes + 1] int64.
    """

    train: Split
    test: Split
    classes: tuple[str, ...]
    zero_is_void: bool
    pixels: dict[str, np.ndarray]
