"""Image files of every mode and format, whole and damaged."""

import io
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from PIL import features as pillow
from support.image_folders import put
from support.synthetic_images import gradients

from ssl_core.data.dataset import Files
from ssl_core.data.decoding.crops import CENTER, crop_resize
from ssl_core.data.decoding.decode import read_image
from ssl_core.data.loaders.cpu import CpuLoader

CPU = torch.device("cpu")
RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def picture(mode: str, pixels, **info) -> Image.Image:
    """A row of pixels in that mode."""
    image = Image.new(mode, (len(pixels), 1))
    image.putdata(pixels)
    image.info.update(info)
    return image


def palette() -> Image.Image:
    image = picture("P", [0, 1, 2, 1])
    image.putpalette([*RED, *GREEN, *BLUE])
    return image


def rotated() -> Image.Image:
    image = Image.fromarray(np.array([[RED, GREEN], [BLUE, WHITE]], np.uint8))
    image.getexif()[0x0112] = 6  # to be turned clockwise by a quarter
    return image


GRAY_16 = Image.fromarray(np.array([[0, 65535, 32896, 257]], np.uint16))


@pytest.mark.parametrize(
    ("image", "format", "expected"),
    [
        (picture("RGB", [RED, GREEN, BLUE]), "png", [[RED, GREEN, BLUE]]),
        (picture("L", [0, 100, 255]), "png", [[BLACK, (100, 100, 100), WHITE]]),
        (picture("1", [0, 255, 0]), "png", [[BLACK, WHITE, BLACK]]),
        (picture("LA", [(40, 255), (40, 0), (0, 128)]), "png", [[(40, 40, 40), WHITE, (127, 127, 127)]]),
        (picture("RGBA", [(*RED, 255), (*RED, 0), (*BLACK, 51)]), "png", [[RED, WHITE, (204, 204, 204)]]),
        (palette(), "png", [[RED, GREEN, BLUE, GREEN]]),
        (picture("CMYK", [(0, 255, 255, 0), (255, 0, 255, 0), (0, 0, 0, 255)]), "tiff", [[RED, GREEN, BLACK]]),
        (GRAY_16, "png", [[BLACK, WHITE, (128, 128, 128), (1, 1, 1)]]),
        (GRAY_16, "tiff", [[BLACK, WHITE, (128, 128, 128), (1, 1, 1)]]),
        (picture("I", [0, 65535, 32896]), "tiff", [[BLACK, WHITE, (128, 128, 128)]]),
        (picture("F", [0.0, 255.0, 300.0, -5.0]), "tiff", [[BLACK, WHITE, WHITE, BLACK]]),
        (rotated(), "png", [[BLUE, RED], [WHITE, GREEN]]),
    ],
    ids=["RGB", "L", "1", "LA", "RGBA", "P", "CMYK", "I;16-png", "I;16-tiff", "I", "F", "EXIF"],
)
def test_every_mode_is_shown_as_a_viewer_shows_it(tmp_path, image, format, expected):
    path = tmp_path / f"image.{format}"
    image.save(path, exif=image.getexif())
    found = read_image(partial(path.open, "rb"))
    assert found.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(found), np.array(expected, np.uint8))


def test_transparent_palette_entries_are_white(tmp_path):
    palette().save(tmp_path / "image.png", transparency=1)
    np.testing.assert_array_equal(
        np.asarray(read_image(partial((tmp_path / "image.png").open, "rb"))), [[RED, WHITE, BLUE, WHITE]]
    )


def test_a_ppm_of_eight_bits_is_read_as_it_is_among_images_of_more():
    """With a comment in its header, it is left to Pillow."""
    data = b"P6\n# made by hand\n2 1\n255\n" + bytes([*RED, *BLUE])
    found = read_image(partial(io.BytesIO, data), levels=(0.0, 4095.0))
    np.testing.assert_array_equal(np.asarray(found), [[RED, BLUE]])


def test_a_jpeg_may_be_decoded_smaller_but_never_below_what_is_needed(tmp_path):
    Image.fromarray(gradients(1, 400)[0].numpy()).save(tmp_path / "image.jpg")
    file = partial((tmp_path / "image.jpg").open, "rb")
    assert read_image(file).size == (400, 400)
    assert read_image(file, 90).size == (100, 100)


def test_a_square_keeps_the_aspect():
    wide = np.repeat(np.arange(64, dtype=np.uint8) * 4, 32 * 3).reshape(64, 32, 3).transpose(1, 0, 2)
    flat, places = torch.from_numpy(wide.flatten()), np.array([[0, 32, 64]])
    [whole] = crop_resize(flat, places, np.array([CENTER]), 32)
    np.testing.assert_array_equal(whole, wide[:, 16:48])
    [corner] = crop_resize(flat, places, np.array([(0.25, 0.0, 0.0)]), 16)
    np.testing.assert_array_equal(corner, wide[:16, :16])


@pytest.mark.parametrize("format", ["png", "jpg", "gif", "bmp", "tiff", "webp", "avif"])
def test_damage_of_any_kind_only_skips_the_file(tmp_path, format):
    if format == "avif" and not pillow.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    whole = tmp_path / f"whole.{format}"
    put(tmp_path, whole.name)
    data, random = whole.read_bytes(), np.random.default_rng(0)
    paths = []
    for number in range(150):
        harmed = bytearray(data[: random.integers(0, len(data))] if number % 2 else data)
        for place in random.integers(0, max(1, len(harmed)), 4 if harmed else 0):
            harmed[place] = random.integers(0, 256)
        paths.append(tmp_path / f"{number}.{format}")
        paths[-1].write_bytes(harmed)
    loader = CpuLoader(Files(paths, np.zeros(len(paths), np.int64)), 16, CPU, 0)
    weights = torch.cat([batch.weights for batch in loader.evaluation(np.arange(len(paths)))])
    assert 0 < len(loader.skipped) == int((weights == 0).sum())


def test_damaged_metadata_does_not_cost_the_picture(tmp_path):
    image, path = rotated(), tmp_path / "image.jpg"
    image.getexif()[0x010E] = "a description"
    image.save(path, exif=image.getexif())
    data = path.read_bytes()
    path.write_bytes(data.replace(b"\x01\x0e\x00\x02", b"\x01\x00\x00\x02"))  # the description is now a width
    loader = CpuLoader(Files([path], np.zeros(1, np.int64)), 16, CPU, 0)
    [batch] = loader.evaluation(np.arange(1))
    assert path.read_bytes() != data
    assert not loader.skipped and batch.weights.item() == 1 and batch.images.float().std() > 1
