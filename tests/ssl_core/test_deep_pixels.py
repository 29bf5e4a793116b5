"""Images of more than eight bits: one range for a dataset, for every loader and for packing, and it is told."""

import struct
import zlib
from functools import partial

import numpy as np
import pytest
import torch
from loaders import each_kind
from packing import pack
from PIL import Image

from ssl_core.data.decode import read_image
from ssl_core.data.order import Order
from ssl_core.data.source import Source, open_source

CPU = torch.device("cpu")


def noise(seed: int, top: float, shape=(24, 24)) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, top, shape)


def opened(folder) -> Source:
    open_source.cache_clear()
    return open_source(str(folder), 24)


def mean_of(split, i: int) -> float:
    return float(np.asarray(read_image(partial(split.open, i), levels=split.levels)).mean())


def save_rgb_16(path, values: np.ndarray) -> None:
    """A PNG of 16 bits a channel, which Pillow cannot write: values [h, w, 3]."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 2, 0, 0, 0)
    image = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + image)


@pytest.mark.parametrize("format", ["png", "tif"])
@pytest.mark.parametrize(("bits", "top"), [(10, 1023), (12, 4095), (14, 16383), (16, 65535)])
def test_integers_span_the_bits_that_the_dataset_uses(tmp_path, format, bits, top):
    for i in range(6):
        Image.fromarray(noise(i, top).astype(np.uint16)).save(tmp_path / f"{i}.{format}")
    source = opened(tmp_path)
    assert source.train.levels == (0, top)
    assert f"read from 0 (black) to {top:,} (white)" in source.notes[0]
    assert [mean_of(source.train, i) for i in range(6)] == pytest.approx([127.5] * 6, abs=8)


def test_a_dark_image_stays_dark_beside_bright_ones(tmp_path):
    for i, top in enumerate((65535, 65535, 200, 4000)):
        Image.fromarray(noise(i, top).astype(np.uint16)).save(tmp_path / f"{i}.png")
    source = opened(tmp_path)
    assert source.train.levels == (0, 65535)
    assert [round(mean_of(source.train, i)) for i in (2, 3)] == [0, 8]


def test_hot_pixels_do_not_darken_the_rest(tmp_path):
    for i in range(6):
        values = noise(i, 4095, (64, 64)).astype(np.uint16)
        values[0, :2] = 65535
        Image.fromarray(values).save(tmp_path / f"{i}.png")
    assert opened(tmp_path).train.levels == (0, 4095)


@pytest.mark.parametrize(
    ("low", "high", "levels"),
    [(0, 1, (0, 1)), (-1, 1, (-1, 1)), (0, 255, (0, 255)), (0, 4000, (0, 4095)), (-1000, 3000, None), (2, 2, None)],
)
def test_floats_span_what_they_usually_mean(tmp_path, low, high, levels):
    for i in range(6):
        values = (low + (high - low) * noise(i, 1)).astype(np.float32)
        values[0, :3] = (np.nan, np.inf, -np.inf)
        Image.fromarray(values).save(tmp_path / f"{i}.tif")
    source = opened(tmp_path)
    if levels:
        assert source.train.levels == levels
    elif high > low:
        assert source.train.levels == pytest.approx((low, high), abs=20)
        assert mean_of(source.train, 0) == pytest.approx(127.5, abs=8)
    pixels = np.asarray(read_image(partial(source.train.open, 0), levels=source.train.levels))
    assert pixels[0, :3, 0].tolist() == [0, 255, 0], "what is not finite is black or white"


def test_negative_integers_have_a_range_of_their_own(tmp_path):
    """Hounsfield units, as computed tomography has them."""
    for i in range(6):
        Image.fromarray((noise(i, 4000) - 1000).astype(np.int32)).save(tmp_path / f"{i}.tif")
    source = opened(tmp_path)
    assert source.train.levels == pytest.approx((-1000, 3000), abs=10)
    assert mean_of(source.train, 0) == pytest.approx(127.5, abs=8)


def test_colors_of_12_bits_in_16(tmp_path):
    values = [noise(i, 4095, (24, 24, 3)).astype(np.uint16) for i in range(4)]
    for i, one in enumerate(values):
        save_rgb_16(tmp_path / f"{i}.png", one)
    source = opened(tmp_path)
    assert source.train.levels == (0, 4095)
    for i, one in enumerate(values):
        found = np.asarray(read_image(partial(source.train.open, i), levels=source.train.levels))
        np.testing.assert_array_equal(found, (one * (255 / 4095)).round())


def test_colors_of_all_16_bits_are_as_pillow_reads_them(tmp_path):
    save_rgb_16(tmp_path / "1.png", noise(0, 65535, (24, 24, 3)).astype(np.uint16))
    source = opened(tmp_path)
    found = np.asarray(read_image(partial(source.train.open, 0), levels=source.train.levels))
    np.testing.assert_array_equal(found, np.asarray(Image.open(tmp_path / "1.png")))


def test_eight_bits_have_no_range(tmp_path):
    for name in ("1.png", "2.jpg", "3.tif"):
        Image.fromarray(noise(0, 50).astype(np.uint8)).save(tmp_path / name)
    source = opened(tmp_path)
    assert source.train.levels is None and source.notes == ()
    assert mean_of(source.train, 0) == pytest.approx(25, abs=2)


@each_kind
def test_every_loader_and_packing_use_the_range(tmp_path, kind):
    for i in range(6):
        Image.fromarray(noise(i, 4095).astype(np.uint16)).save(tmp_path / f"{i}.png")
    source = opened(tmp_path)
    [batch] = kind(source.train, 24, CPU, 1).training(Order(6, 0), 6, range(1), 0, 1)
    assert batch.images.float().mean().item() == pytest.approx(127.5, abs=8)
    pack(source, tmp_path / "packed", side=24)
    packed = opened(tmp_path / "packed")
    assert mean_of(packed.train, 0) == pytest.approx(127.5, abs=8)
