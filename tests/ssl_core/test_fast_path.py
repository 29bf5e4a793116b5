"""Plain images are decoded by a shorter way to the same pixels."""

import io
import os
from functools import partial

import numpy as np
import pytest
from PIL import Image
from support.jpegs import jpeg, picture

from ssl_core.data.decoding.decode import decode, read_fast_path, read_image

TURNED, UPRIGHT = Image.Exif(), Image.Exif()
TURNED[0x0112], UPRIGHT[0x0112] = 6, 1
PLAIN = {
    "4:2:0": dict(subsampling="4:2:0"),
    "4:2:2": dict(subsampling="4:2:2"),
    "4:4:4": dict(subsampling="4:4:4"),
    "progressive": dict(progressive=True),
    "optimized": dict(optimize=True, quality=30),
    "in RGB": dict(keep_rgb=True),
    "with metadata": dict(exif=UPRIGHT),
}


@pytest.mark.parametrize("shape", [(99, 121), (64, 128), (17, 33), (8, 1)])
@pytest.mark.parametrize("options", PLAIN.values(), ids=PLAIN)
@pytest.mark.parametrize("gray", [False, True])
def test_plain_jpegs_take_a_shorter_way_to_the_same_pixels(options, shape, gray):
    image = picture(*shape).convert("L") if gray else picture(*shape)
    data = jpeg(image, **options)
    open = partial(io.BytesIO, data)
    assert read_fast_path(open) == (data, *shape, None)
    for least in (None, 8, 16, 33):
        room: dict = {}
        made = decode(open, least, lambda h, w, room=room: room.setdefault((h, w), np.empty((h, w, 3), np.uint8)))
        assert list(room) == [made], "one way only was taken"
        np.testing.assert_array_equal(room[made], np.asarray(read_image(open, least)))


def test_a_huge_file_is_left_to_pillow_which_reads_no_more_than_it_needs(tmp_path):
    """A JPEG may have anything behind its end."""
    data, path = jpeg(picture(20, 20)), tmp_path / "sparse.jpg"
    path.write_bytes(data)
    os.truncate(path, 2**33)
    room: dict = {}
    made = decode(partial(open, path, "rb"), None, lambda h, w: room.setdefault((h, w), np.empty((h, w, 3), np.uint8)))
    np.testing.assert_array_equal(room[made], np.asarray(read_image(partial(io.BytesIO, data))))


@pytest.mark.parametrize("least", [None, 20])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_uncompressed_images_take_one_too(mode, least):
    file = io.BytesIO()
    picture(50, 41).convert(mode).save(file, "ppm")
    open, room = partial(io.BytesIO, file.getvalue()), {}
    assert (read_fast_path(open) is None) == (mode == "L")
    made = decode(open, least, lambda h, w: room.setdefault((h, w), np.empty((h, w, 3), np.uint8)))
    np.testing.assert_array_equal(room[made], np.asarray(read_image(open, least)))
    for cut_off in (file.getvalue()[:-1], b"P6\n41 50\n255\n", b"P6\n1 1 255"):
        assert read_fast_path(partial(io.BytesIO, cut_off)) is None


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6"/>'
FAR = jpeg(picture(30, 40), comment=bytes(60_000), exif=TURNED)
FAR = FAR.replace(
    b"\xff\xfe", b"\xff\xfe\xea\x62" + bytes(60_000) + b"\xff\xfe\xea\x62" + bytes(60_000) + b"\xff\xfe", 1
)


@pytest.mark.parametrize(
    "data",
    [
        jpeg(picture(30, 40).convert("CMYK")),
        jpeg(picture(30, 40), xmp=XMP),
        FAR,
        jpeg(picture(30, 40), exif=TURNED),
        jpeg(picture(30, 40), exif=TURNED)[:-2],
        jpeg(picture(30, 40))[:-2],
        b"",
        b"\xff\xd8\xff\xd9",
    ],
    ids=[
        "CMYK",
        "turned by XMP",
        "turned far inside",
        "turned",
        "turned and cut off",
        "without an end",
        "empty",
        "nothing inside",
    ],
)
def test_what_is_not_plain_is_left_to_pillow(data):
    assert read_fast_path(partial(io.BytesIO, data)) is None
