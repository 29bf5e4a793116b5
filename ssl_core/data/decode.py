"""One image file to pixels, whatever its mode: grey, palette, RGBA, CMYK, 16-bit, EXIF-rotated."""

import errno
import io
import os
import stat
import struct
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps

# What Pillow raises on broken or hostile files: RuntimeError on AVIF, struct.error on EXIF, and
# DecompressionBombError to guard memory.
UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, OverflowError, MemoryError,
              RuntimeError, struct.error, Image.DecompressionBombError)  # fmt: skip

T = TypeVar("T")
LASTING = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ELOOP}  # no use to try again
WAITS = (0.1, 0.4)  # seconds before each further attempt, if a disk or a network failed


def patiently(read: Callable[[], T], waits: tuple[float, ...] = WAITS) -> T:
    """What read() returns. It is tried again after each of `waits` if it was the system that failed."""
    for wait in waits:
        try:
            return read()
        except OSError as error:
            if error.errno is None or error.errno in LASTING:  # Pillow's own, about the bytes, have no number
                raise
        time.sleep(wait)
    return read()


def read_image(
    source: Path | io.BytesIO, shrink_to: int | None = None, waits: tuple[float, ...] = WAITS
) -> Image.Image:
    """The file (or the bytes of one) as RGB, upright. `shrink_to`: a JPEG may come smaller, but no side below this.

    A file is read patiently. Raises one of UNREADABLE if that does not help, or if it is not a whole image.
    """
    return patiently(lambda: _decoded(source, shrink_to), waits)


def _decoded(source: Path | io.BytesIO, shrink_to: int | None) -> Image.Image:
    if isinstance(source, Path) and not stat.S_ISREG(os.stat(source).st_mode):
        raise ValueError("not a regular file")  # opening a pipe would wait for ever
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata and on merely large files
        with Image.open(source) as file:
            if shrink_to:
                file.draft("RGB", (shrink_to, shrink_to))
            file.load()
            try:
                image = ImageOps.exif_transpose(file)
            except UNREADABLE:  # a whole picture with broken metadata: as it lies
                image = file
            return _rgb(image)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, np.float64)
        top = 65535 if image.mode.startswith("I") and values.max(initial=0) > 255 else 255
        image = Image.fromarray((values.clip(0, top) * (255 / top)).round().astype(np.uint8))
    if image.has_transparency_data:
        # a transparent pixel's colour is arbitrary: what a viewer shows is the image on a background
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
    return image.convert("RGB")


def square(image: Image.Image, size: int, box: tuple[float, float, float] | None = None) -> np.ndarray:
    """-> [size, size, 3] uint8: the square `box` = (scale, y, x) of an image, or its central square.

    scale is the box's area over that of the largest square; y and x in [0, 1) place it. The box keeps the
    aspect: stretching along one axis before a rotation would give the rotation away.
    """
    scale, y, x = box or (1.0, 0.5, 0.5)
    side = max(1, round(min(image.size) * scale**0.5))
    left, top = int((image.width - side + 1) * x), int((image.height - side + 1) * y)
    area = (left, top, left + side, top + side)
    return np.asarray(image.resize((size, size), Image.BILINEAR, box=area, reducing_gap=2.0))
