"""One image file to pixels, whatever its mode: gray, palette, RGBA, CMYK, 16-bit, EXIF-rotated."""

import errno
import io
import re
import struct
import time
import warnings
from collections.abc import Callable
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np
import simplejpeg
from PIL import Image, ImageOps

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
    """What read() returns. It is tried again after each of `waits` if it was the system that failed."""
    for wait in waits:
        try:
            return read()
        except OSError as error:
            if error.errno is None or error.errno in PERMANENT_ERRORS:  # Pillow's own, about the bytes, have no number
                raise
        time.sleep(wait)
    return read()


def reduction(height: int, width: int, min_side: int | None) -> int:
    """1, 2, 4 or 8: the most that both sides can be divided by and stay at `min_side` pixels; 1 without `min_side`."""
    fits = [factor for factor in (2, 4, 8) if min_side and min(height, width) >= factor * min_side]
    return max(fits, default=1)


def decode(
    open: Open, min_side: int | None, reserve: Callable[[int, int], np.ndarray], levels: Levels | None = None
) -> tuple[int, int]:
    """Puts the image, as `read_image` gives it, into room(height, width), a dense uint8 [height, width, 3] ->
    (height, width).

    Raises what `read_image` raises. Plain files take a shorter way to the same pixels.
    """
    pixels, plain = None, read_fast_path(open)
    if plain:
        factor = reduction(plain.height, plain.width, min_side)
        height, width = -(-plain.height // factor), -(-plain.width // factor)
        if plain.start is None:
            smaller = dict(min_height=height, min_width=width) if factor > 1 else {}
            pixels = reserve(height, width)
            try:
                simplejpeg.decode_jpeg(plain.data, "RGB", buffer=pixels, **smaller)
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
    """A JPEG in color or gray that lies upright and seems whole, or an uncompressed image in color."""

    data: bytes
    height: int
    width: int
    start: int | None = None  # of the pixels in data; None for a JPEG


def read_fast_path(open: Open) -> FastPathImage | None:
    """The file, read with retries, if it is plain; None for all else. Raises what open() raises, and OSError if the
    file cannot be read."""
    return with_retries(lambda: _read_fast_path(open))


def _read_fast_path(open: Open) -> FastPathImage | None:
    with open() as file:
        magic = file.read(3)
        if magic not in (JPEG, PPM) or file.seek(0, io.SEEK_END) > LARGEST:
            return None
        file.seek(0)
        data = file.read()
    if magic == PPM:
        header = PPM_HEADER.match(data)
        width, height = map(int, header.groups()) if header else (0, 0)
        whole = header and len(data) == header.end() + 3 * width * height > header.end()
        return FastPathImage(data, height, width, header.end()) if whole else None
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
        plain = colors in ("YCbCr", "Gray", "RGB") and height * width <= 2 * Image.MAX_IMAGE_PIXELS
        return (
            FastPathImage(data, height, width) if plain and data.endswith(END_OF_IMAGE) and _is_upright(data) else None
        )
    except UNREADABLE:
        return None


def _is_upright(data: bytes) -> bool:
    """Whether a JPEG has no metadata, in Exif or XMP, that say otherwise."""
    if EXIF not in data and XMP not in data:
        return True
    with Image.open(io.BytesIO(data)) as file:
        return file.getexif().get(ORIENTATION, 1) == 1


def read_image(
    open: Open, min_side: int | None = None, waits: tuple[float, ...] = WAITS_S, levels: Levels | None = None
) -> Image.Image:
    """The file as RGB, upright. `min_side`: a larger image comes at a half, a quarter or an eighth, but with no side
    below this. `levels`: the values of a deep image that become black and white.

    A file is read with retries. Raises one of UNREADABLE if that does not help, or if it is not a whole image.
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


def _load_eight_bits(file: Image.Image, source: BinaryIO, levels: Levels | None) -> Image.Image:
    """The image, loaded, with eight bits a channel. Colors of 16 bits that use all of them are as Pillow reads them."""
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
