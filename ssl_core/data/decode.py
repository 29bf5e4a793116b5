"""One image file to pixels, whatever its mode: grey, palette, RGBA, CMYK, 16-bit, EXIF-rotated."""

import errno
import struct
import time
import warnings
from collections.abc import Callable
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np
import simplejpeg
from PIL import Image, ImageOps

# What Pillow raises on broken or hostile files: RuntimeError on AVIF, struct.error on EXIF, and
# DecompressionBombError to guard memory.
UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, OverflowError, MemoryError,
              RuntimeError, struct.error, Image.DecompressionBombError)  # fmt: skip

T = TypeVar("T")
Open = Callable[[], BinaryIO]
LASTING = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ELOOP}  # no use to try again
WAITS = (0.1, 0.4)  # seconds before each further attempt, if a disk or a network failed
ORIENTATION = 0x0112  # EXIF's tag; 1 is upright
END_OF_IMAGE = b"\xff\xd9"  # JPEG's last marker; decoders differ in what they make of a file that was cut off
warnings.filterwarnings("ignore", module=r"PIL\.")  # remarks on odd metadata and on merely large files


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


def shrinking(height: int, width: int, least: int | None) -> int:
    """1, 2, 4 or 8: the most that both sides can be divided by and stay at `least` pixels; 1 without `least`."""
    fits = [factor for factor in (2, 4, 8) if least and min(height, width) >= factor * least]
    return max(fits, default=1)


def decode(open: Open, least: int | None, room: Callable[[int, int], np.ndarray]) -> tuple[int, int]:
    """Puts the image, as `read_image` gives it, into room(height, width), a dense uint8 [height, width, 3] ->
    (height, width).

    Raises what `read_image` raises. A plain JPEG takes a shorter way to the same pixels.
    """
    pixels = None
    if jpeg := plain_jpeg(open):
        factor = shrinking(jpeg.height, jpeg.width, least)
        height, width = -(-jpeg.height // factor), -(-jpeg.width // factor)
        smaller = dict(min_height=height, min_width=width) if factor > 1 else {}
        pixels = room(height, width)
        try:
            simplejpeg.decode_jpeg(jpeg.data, "RGB", buffer=pixels, **smaller)
        except ValueError:  # a fault in it, perhaps one that can be overlooked: read_image decides
            pixels = None
    if pixels is None:
        image = read_image(open, least)
        pixels = room(image.height, image.width)
        pixels[:] = np.asarray(image)
    return pixels.shape[0], pixels.shape[1]


class PlainJpeg(NamedTuple):
    """A JPEG in colour or grey that lies upright and seems whole."""

    data: bytes
    height: int
    width: int


def plain_jpeg(open: Open) -> PlainJpeg | None:
    """The file, read patiently, if it is a plain JPEG; None for all else. Raises OSError if it cannot be read."""
    return patiently(lambda: _plain_jpeg(open))


def _plain_jpeg(open: Open) -> PlainJpeg | None:
    try:
        with open() as file, Image.open(file) as header:
            if header.format != "JPEG" or header.mode not in ("RGB", "L") or header.getexif().get(ORIENTATION, 1) != 1:
                return None
            file.seek(0)
            data = file.read()
            return PlainJpeg(data, header.height, header.width) if data.endswith(END_OF_IMAGE) else None
    except OSError as error:
        if error.errno is not None:  # the system failed, not the bytes
            raise
        return None
    except UNREADABLE:
        return None


def read_image(open: Open, least: int | None = None, waits: tuple[float, ...] = WAITS) -> Image.Image:
    """The file as RGB, upright. `least`: a larger image comes at a half, a quarter or an eighth, but with no side
    below this.

    A file is read patiently. Raises one of UNREADABLE if that does not help, or if it is not a whole image.
    """
    return patiently(lambda: _decoded(open, least), waits)


def _decoded(open: Open, least: int | None) -> Image.Image:
    with open() as source, Image.open(source) as file:
        factor = shrinking(file.height, file.width, least)
        if factor > 1 and file.format == "JPEG":  # decoded at that size
            file.draft("RGB", (file.width // factor, file.height // factor))
            factor = 1
        file.load()
        try:
            image = ImageOps.exif_transpose(file)
        except UNREADABLE:  # a whole picture with broken metadata: as it lies
            image = file
        image = _rgb(image)
        return image.reduce(factor) if factor > 1 else image


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


def square(height: int, width: int, box: tuple[float, float, float] | None = None) -> tuple[int, int, int, int]:
    """The square `box` = (scale, y, x) of an image, or its central square -> (y, x, side, side) in pixels.

    scale is the box's area over that of the largest square; y and x in [0, 1) place it. The box keeps the
    aspect: stretching along one axis before a rotation would give the rotation away.
    """
    scale, y, x = box or (1.0, 0.5, 0.5)
    side = max(1, round(min(height, width) * scale**0.5))
    return int((height - side + 1) * y), int((width - side + 1) * x), side, side
