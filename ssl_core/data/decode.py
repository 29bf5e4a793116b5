"""One image file to pixels, whatever its mode: grey, palette, RGBA, CMYK, 16-bit, EXIF-rotated."""

import io
import struct
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

# What Pillow raises on broken or hostile files: RuntimeError on AVIF, struct.error on EXIF, and
# DecompressionBombError to guard memory.
UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, OverflowError, MemoryError,
              RuntimeError, struct.error, Image.DecompressionBombError)  # fmt: skip


def read_image(path: Path | io.BytesIO, shrink_to: int | None = None) -> Image.Image:
    """The file (or the bytes of one) as RGB, upright. `shrink_to`: a JPEG may come smaller, but no side below this.

    Raises one of UNREADABLE if the file is not a whole image.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata and on merely large files
        with Image.open(path) as file:
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
