"""Decodes one image file of any mode to RGB: gray, palette, RGBA, CMYK, 16-bit, EXIF-rotated."""

import errno
import io
import re
import struct
import time
import warnings
from collections.abc import Callable
from typing import BinaryIO, NamedTuple, TypeVar, cast

import numpy as np
import simplejpeg
from PIL import Image, ImageOps
from PIL.ImageFile import ImageFile

from ssl_core.data.decoding.deep_pixels import (
    BY_MODE,
    SIXTEEN_BITS,
    Levels,
    check_readable,
    deep_values,
    eight_bits,
    is_deep,
)

# What Pillow raises on broken or hostile files: RuntimeError on AVIF, struct.error on EXIF, and
# DecompressionBombError to guard memory.
UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    TypeError,
    OverflowError,
    MemoryError,
    RuntimeError,
    struct.error,
    Image.DecompressionBombError,
)

T = TypeVar("T")
Open = Callable[[], BinaryIO]
PERMANENT_ERRORS = {
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
}  # no use to try again
WAITS_S = (0.1, 0.4)  # seconds before each further attempt, if a disk or a network failed
JPEG, END_OF_IMAGE = b"\xff\xd8\xff", b"\xff\xd9"  # without its end, decoders differ in what they make of a file
EXIF, XMP, ORIENTATION = b"Exif\0\0", b"tiff:Orientation", 0x0112
LARGEST = 2**28  # bytes of a file that is read at once
PPM, PPM_HEADER = b"P6\n", re.compile(rb"P6\n(\d{1,5}) (\d{1,5})\n255\n")
warnings.filterwarnings("ignore", module=r"PIL\.")  # remarks on odd metadata and on merely large files


def with_retries(read: Callable[[], T], waits: tuple[float, ...] = WAITS_S) -> T:
    """Reads, and tries again if the system failed and not the file's content.

    Args:
        read: Reads a file.
        waits: Seconds before each further attempt.

    Returns:
        What `read` returns.

    Raises:
        OSError: If the system failed at each attempt, or in a way that does not pass. Other errors of `read` pass
            through at once.
    """
    for wait in waits:
        try:
            return read()
        except OSError as error:
            if error.errno is None or error.errno in PERMANENT_ERRORS:  # Pillow's own, about the bytes, have no number
                raise
        time.sleep(wait)
    return read()


def reduction(height: int, width: int, min_side: int | None) -> int:
    """Returns 1, 2, 4 or 8: the most by which both sides can be divided and keep `min_side` pixels; 1 without it."""
    fits = [factor for factor in (2, 4, 8) if min_side and min(height, width) >= factor * min_side]
    return max(fits, default=1)


def decode(
    open: Open, min_side: int | None, reserve: Callable[[int, int], np.ndarray], levels: Levels | None = None
) -> tuple[int, int]:
    """Decodes an image to the pixels that `read_image` gives, by a faster way if the file is plain.

    Args:
        open: Opens the file, perhaps several times.
        min_side: As for `read_image`.
        reserve: Returns the dense memory, [height, width, 3] uint8, that the pixels are written to; the last call's
            counts.
        levels: As for `read_image`.

    Returns:
        Height and width in pixels.

    Raises:
        StorageError: If the file's store fails. Whatever else is wrong raises one of UNREADABLE.
    """
    pixels, plain = None, read_fast_path(open)
    if plain:
        factor = reduction(plain.height, plain.width, min_side)
        height, width = -(-plain.height // factor), -(-plain.width // factor)
        if plain.start is None:
            least = (height, width) if factor > 1 else (0, 0)  # 0: its own size
            pixels = reserve(height, width)
            try:
                simplejpeg.decode_jpeg(plain.data, "RGB", min_height=least[0], min_width=least[1], buffer=pixels)
            except ValueError:  # a fault in it, perhaps one that can be overlooked: read_image decides
                pixels = None
        else:
            found = np.frombuffer(plain.data, np.uint8, offset=plain.start).reshape(plain.height, plain.width, 3)
            pixels = reserve(height, width)
            pixels[:] = found if factor == 1 else Image.fromarray(found).reduce(factor)
    if pixels is None:
        image = read_image(open, min_side, levels=levels)
        pixels = reserve(image.height, image.width)
        pixels[:] = np.asarray(image)
    return pixels.shape[0], pixels.shape[1]


class FastPathImage(NamedTuple):
    """The file of a plain image: a JPEG in color or gray that is upright and seems whole, or a PPM of 8 bits in color.

    Attributes:
        data: The file's bytes.
        height: Pixels.
        width: Pixels.
        start: Where the pixels begin in `data`; None for a JPEG.
    """

    data: bytes
    height: int
    width: int
    start: int | None = None


def read_fast_path(open: Open) -> FastPathImage | None:
    """Reads a file, with retries, if it is plain.

    Args:
        open: Opens the file, perhaps several times; what it raises passes through.

    Returns:
        The file, or None if it is not plain.

    Raises:
        OSError: If it cannot be read.
    """
    return with_retries(lambda: _read_fast_path(open))


def _read_fast_path(open: Open) -> FastPathImage | None:
    with open() as file:
        magic = file.read(3)
        if magic not in (JPEG, PPM) or file.seek(0, io.SEEK_END) > LARGEST:
            return None
        file.seek(0)
        data = file.read()
    if magic == PPM:
        if (header := PPM_HEADER.match(data)) is None:
            return None
        width, height = map(int, header.groups())
        whole = len(data) == header.end() + 3 * width * height > header.end()
        return FastPathImage(data, height, width, header.end()) if whole else None
    try:
        # its stub says SupportsInt, which is what it takes
        height, width, colors, _ = cast(tuple[int, int, str, str], simplejpeg.decode_jpeg_header(data))
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # without a limit, which sources set for a moment, Pillow decodes
        plain = colors in ("YCbCr", "Gray", "RGB") and height * width <= most
        return (
            FastPathImage(data, height, width) if plain and data.endswith(END_OF_IMAGE) and _is_upright(data) else None
        )
    except UNREADABLE:
        return None


def _is_upright(data: bytes) -> bool:
    """Returns whether no metadata of a JPEG, in Exif or XMP, say that it is to be turned."""
    if EXIF not in data and XMP not in data:
        return True
    with Image.open(io.BytesIO(data)) as file:
        return file.getexif().get(ORIENTATION, 1) == 1


def read_image(
    open: Open, min_side: int | None = None, waits: tuple[float, ...] = WAITS_S, levels: Levels | None = None
) -> Image.Image:
    """Decodes an image to RGB, upright, on white where it is transparent.

    Args:
        open: Opens the file, perhaps several times.
        min_side: A larger image comes at a half, a quarter or an eighth, but with no side below this; None: as it is.
        waits: Seconds before each further attempt if the system failed.
        levels: The values of an image of more than eight bits that become black and white; None: the usual ones of its
            mode.

    Returns:
        The image in mode RGB.

    Raises:
        StorageError: If the file's store fails. One of UNREADABLE is raised if the file cannot be read or is not a
            whole image.
    """
    return with_retries(lambda: _decode(open, min_side, levels), waits)


def _decode(open: Open, min_side: int | None, levels: Levels | None) -> Image.Image:
    with open() as source, Image.open(source) as file:
        factor = reduction(file.height, file.width, min_side)
        if factor > 1 and file.format == "JPEG":  # decoded at that size
            file.draft("RGB", (file.width // factor, file.height // factor))
            factor = 1
        shown = _load_eight_bits(file, source, levels)
        try:
            image = ImageOps.exif_transpose(shown)
        except UNREADABLE:  # a whole picture with broken metadata: as it lies
            image = shown
        image = _to_rgb(image)
        return image.reduce(factor) if factor > 1 else image


def _load_eight_bits(file: ImageFile, source: BinaryIO, levels: Levels | None) -> Image.Image:
    """Loads an image with eight bits a channel. Colors of 16 bits that use all of them are as Pillow reads them."""
    check_readable(file)
    gray = is_deep(file)
    values = deep_values(file, source) if gray or levels not in (None, SIXTEEN_BITS) else None
    if values is None:
        file.load()
        return file
    shown = eight_bits(values, levels or BY_MODE.get(file.mode, SIXTEEN_BITS))
    shown.getexif()[ORIENTATION] = file.getexif().get(ORIENTATION, 1)
    return shown


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        # a transparent pixel's color is arbitrary: what a viewer shows is the image on a background
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
    return image.convert("RGB")
