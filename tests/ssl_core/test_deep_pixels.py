"""Images of more than eight bits: one range for a dataset, for every loader and for packing, and it is told."""

import struct
import zlib
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from support.loaders import each_kind
from support.packing import pack

from ssl_core.data.dataset import Source, open_source
from ssl_core.data.decoding.decode import read_image
from ssl_core.data.sampler import ShuffledSampler
from ssl_core.errors import UserError

CPU = torch.device("cpu")


def noise(seed: int, top: float, shape=(24, 24)) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, top, shape)


def opened(folder) -> Source:
    open_source.cache_clear()
    return open_source(str(folder), 24)


def mean_of(split, i: int) -> float:
    return float(np.asarray(read_image(partial(split.open, i), levels=split.levels)).mean())


def save_rgb_16(path, values: np.ndarray) -> None:
    write_png_16(path, values, 2)


def write_png_16(path, values: np.ndarray, colors: int) -> None:
    """A PNG of 16 bits a channel, which Pillow cannot write: values [h, w, c], of PNG's color type `colors`."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colors, 0, 0, 0)
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
    [batch] = kind(source.train, 24, CPU, 1).training(ShuffledSampler(6, 0), 6, range(1), 0, 1)
    assert batch.images.float().mean().item() == pytest.approx(127.5, abs=8)
    pack(source, tmp_path / "packed", side=24)
    packed = opened(tmp_path / "packed")
    assert mean_of(packed.train, 0) == pytest.approx(127.5, abs=8)


def test_more_ways_to_keep_16_bits(tmp_path):
    """Gray with opacity in PNG, and PPM: 12 bits in 16 are read as bright as in any other file."""
    values = noise(0, 4095).astype(np.uint16)
    opaque = np.stack([values, np.full_like(values, 65535)], axis=-1)
    write_png_16(tmp_path / "1.png", opaque, 4)
    color = np.stack([values] * 3, axis=-1)
    (tmp_path / "2.ppm").write_bytes(b"P6\n24 24\n65535\n" + color.astype(">u2").tobytes())
    Image.fromarray(values).save(tmp_path / "3.png")
    source = opened(tmp_path)
    assert source.train.levels == (0, 4095)
    means = [mean_of(source.train, i) for i in range(3)]
    assert means == pytest.approx([means[2]] * 3, abs=0.1) and means[2] > 100


@pytest.mark.parametrize(
    ("tags", "why"), [({284: 2}, "each color in a plane of its own"), ({262: 0, 277: 1}, "in which zero is white")]
)
def test_what_pillow_would_misread_is_refused(tmp_path, tags, why):
    write_tiff_16(tmp_path / "1.tif", tags)
    with pytest.raises(UserError, match=why):
        opened(tmp_path)


def write_tiff_16(path, tags: dict[int, int]) -> None:
    """An uncompressed TIFF of 8 x 8 px with three channels of 16 bits, or as `tags` say."""
    channels = tags.get(277, 3)
    known = {
        256: 8,
        257: 8,
        258: 16,
        259: 1,
        262: 2,
        273: 300,
        277: channels,
        278: 8,
        279: 128 * channels,
        284: 1,
    } | tags
    planes = channels if known[284] == 2 else 1
    entries, more = b"", b""
    for tag, value in sorted(known.items()):
        values = [value] * (channels if tag == 258 else planes if tag in (273, 279) else 1)
        if tag in (273, 279) and planes > 1:
            values = [300 + 128 * i if tag == 273 else 128 for i in range(planes)]
        packed = struct.pack(f"<{len(values)}H", *values)
        if len(packed) > 4:
            place, more = 200 + len(more), more + packed
            packed = struct.pack("<I", place)
        entries += struct.pack("<HHI", tag, 3, len(values)) + packed.ljust(4, b"\0")
    head = b"II*\0" + struct.pack("<IH", 8, len(known)) + entries + bytes(4)
    path.write_bytes((head.ljust(200, b"\0") + more).ljust(300, b"\0") + bytes(128 * channels))


def test_few_deep_images_among_many_are_found(tmp_path):
    """27 of 300, of which a look at 32 places may find none."""
    for i in range(300):
        deep = i % 11 == 5
        Image.fromarray(noise(i, 4095 if deep else 255).astype(np.uint16 if deep else np.uint8)).save(
            tmp_path / f"{i:03d}.png"
        )
    source = opened(tmp_path)
    assert source.train.levels == (0, 4095) and mean_of(source.train, 5) > 100


def test_test_images_of_another_range_are_named(tmp_path):
    for part, top, kind in (("train", 255, np.uint8), ("test", 4095, np.uint16)):
        for i in range(4):
            path = tmp_path / part / "ab"[i % 2] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise(i, top).astype(kind)).save(path)
    assert any(note.startswith("test images have pixels from 0 (black) to 4,095") for note in opened(tmp_path).notes)


def test_maps_that_know_nothing(tmp_path):
    """-3.4e38 stands for no data; where nothing else is there, the image is black."""
    values = noise(0, 500).astype(np.float32)
    values[:5] = -3.4028235e38
    Image.fromarray(values).save(tmp_path / "1.tif")
    Image.fromarray(np.full((24, 24), -3.4028235e38, np.float32)).save(tmp_path / "2.tif")
    source = opened(tmp_path)
    assert source.train.levels == (0, 1023) and 40 < mean_of(source.train, 0) < 80 and mean_of(source.train, 1) == 0
    (tmp_path / "1.tif").unlink()
    assert mean_of(opened(tmp_path).train, 0) == 0
