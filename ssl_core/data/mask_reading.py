"""Reads masks, and cuts them as images are cut."""

from collections.abc import Iterator
from functools import partial

import numpy as np
from PIL import Image

from ssl_core.data.decoding.crops import CENTER, crop_boxes, min_side
from ssl_core.data.decoding.decode import UNREADABLE, reduction, with_retries
from ssl_core.data.in_threads import in_threads
from ssl_core.data.masks import VOID, Masks
from ssl_core.data.split import Split
from ssl_core.errors import UserError, reason_of

MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")  # Pillow's, of one number a pixel; that of a palette is an index


def read_masks(masks: Masks, part: str, ids: np.ndarray, size: int) -> np.ndarray:
    """Reads the central squares of some masks, pixel for pixel those of the images.

    Args:
        masks: Of the dataset.
        part: "train" or "test".
        ids: [k] int64, rows of the part's images.
        size: The side in pixels that images are delivered at.

    Returns:
        [k, size, size] uint8: classes, and VOID.

    Raises:
        UserError: If a mask cannot be read, or has a value that is no class.
        StorageError: If a store fails.
    """
    split = masks.train if part == "train" else masks.test

    def square(i: int) -> np.ndarray:
        values = read_mask(split, i)
        if masks.zero_is_void:
            values = np.where(values == VOID, VOID, values - np.uint8(1))  # 0 - 1 is VOID
        check_values(split.name(i), np.unique(values), len(masks.classes), masks.zero_is_void)
        return central_square(values, size)

    found = in_threads(lambda rows: [square(i) for i in rows.tolist()], ids)
    return np.stack([mask for _, of in found for mask in of])


def read_mask(split: Split, i: int) -> np.ndarray:
    """Returns the values in the file of mask `i`, [height, width] uint8.

    Raises:
        UserError: If it cannot be read, is lossy, or has not one number of at most 255 for each pixel.
        StorageError: If a store fails.
    """
    try:
        return with_retries(partial(_read, split, i))
    except UserError:
        raise
    except UNREADABLE as error:
        raise UserError(f"the mask {split.name(i)} cannot be read: {reason_of(error)}") from error


def _read(split: Split, i: int) -> np.ndarray:
    with split.open(i) as source, Image.open(source) as file:
        if file.format in ("JPEG", "MPO"):
            raise UserError(f"the mask {split.name(i)} is a JPEG, which changes values: expected a PNG")
        if file.mode not in MODES:
            raise UserError(
                f"the mask {split.name(i)} has the mode {file.mode}, expected one number a pixel: gray or a palette"
            )
        values = np.asarray(file)
    least, most = int(values.min()), int(values.max())
    if least < 0 or most > VOID:
        raise UserError(f"the mask {split.name(i)} has values of {least} to {most}, expected 0 to {VOID}")
    return values.astype(np.uint8)


def check_values(name: str, values: np.ndarray, classes: int, zero_is_void: bool) -> None:
    """Checks that a mask has only classes and VOID.

    Args:
        name: What messages call the mask.
        values: Of its pixels, classes from 0 on, in rising order.
        classes: How many there are.
        zero_is_void: Whether its file has 1 for the first.

    Raises:
        UserError: If another value is there.
    """
    if len(wrong := values[(values >= classes) & (values != VOID)]):
        shown = int(wrong[0]) + zero_is_void
        raise UserError(
            f"the mask {name} has the value {shown}, and there are {classes} classes, {int(zero_is_void)} to "
            f"{classes - 1 + zero_is_void}; {VOID} stands for none"
        )


def central_square(mask: np.ndarray, size: int) -> np.ndarray:
    """Cuts the central square of a mask and resizes it by its nearest pixels, as the image is cut and resized.

    An image is decoded at a half, a quarter or an eighth where that is enough, which rounds where its square begins:
    so does this.

    Args:
        mask: [height, width], of the image's size.
        size: The new side in pixels.

    Returns:
        [size, size].
    """
    height, width = mask.shape
    factor = reduction(height, width, min_side(size, CENTER[0]))
    decoded = [np.array([-(-side // factor)]) for side in (height, width)]
    y, x, side, _ = crop_boxes(decoded[0], decoded[1], np.array([CENTER]))[0].tolist()
    middle = (np.arange(size) + 0.5) * side / size
    rows, columns = (
        np.minimum(((start + middle) * factor).astype(np.int64), end - 1) for start, end in ((y, height), (x, width))
    )
    return mask[rows[:, None], columns]


def count_pixels(split: Split) -> Iterator[tuple[str, np.ndarray, tuple[int, int]]]:
    """Reads all masks of a split, in threads.

    Yields:
        Of each, in their order: its name, how many pixels have each value, [256] int64, and its width and height.

    Raises:
        UserError: As `read_mask` does.
    """

    def some_of(rows: np.ndarray) -> list[tuple[str, np.ndarray, tuple[int, int]]]:
        masks = ((i, read_mask(split, i)) for i in rows.tolist())
        return [(split.name(i), np.bincount(mask.ravel(), minlength=256), mask.shape[::-1]) for i, mask in masks]

    for _, found in in_threads(some_of, np.arange(len(split))):
        yield from found
