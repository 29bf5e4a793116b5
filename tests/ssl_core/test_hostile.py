"""Hostile folders: every file has one of two outcomes, its pixels, or to be skipped, named once and counted."""

import io
import os
import resource
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from support.loaders import each_kind
from support.sources import each_plain_source, store

from ssl_core.data.dataset import Files, open_source
from ssl_core.data.decoding.crops import CENTER, Buffer, crop_resize
from ssl_core.data.decoding.decode import UNREADABLE, read_image
from ssl_core.data.description import Effort, describe
from ssl_core.data.description_record import DatasetRecord
from ssl_core.data.sampler import ShuffledSampler, make_sampler
from ssl_core.errors import UserError

CPU = torch.device("cpu")
RED, GRAY = (200, 40, 10), (128, 128, 128)


def encoded(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def red(format: str = "png", size: tuple[int, int] = (20, 20), mode: str = "RGB") -> bytes:
    return encoded(Image.new("RGB", size, RED).convert(mode), format)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


GRAY_16 = Image.fromarray(np.full((20, 20), 128 * 257, np.uint16))
MOVING = [Image.new("RGB", (20, 20), color) for color in (RED, (0, 0, 255), (0, 255, 0))]
NOISE = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)), "jpeg")
BOMB = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
BOMB += chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")

READ = {  # name -> (bytes, the one color in it)
    "really png.jpg": (red("png"), RED),
    "cmyk.jpg": (red("jpeg", mode="CMYK"), RED),
    "16 bits.png": (encoded(GRAY_16, "png"), GRAY),
    "16 bits.tiff": (encoded(GRAY_16, "tiff"), GRAY),
    "moving.gif": (encoded(MOVING[0], "gif", save_all=True, append_images=MOVING[1:]), RED),
    "one pixel.png": (red(size=(1, 1)), RED),
    "wide and low.png": (red(size=(20_000, 40)), RED),
    "wide and low.jpg": (red("jpeg", size=(20_000, 40)), RED),
    "a line.png": (red(size=(20_000, 1)), RED),
    "a column.png": (red(size=(1, 20_000)), RED),
    "кошка 猫 🐕.png": (red(), RED),
    "é" * 123 + ".png": (red(), RED),  # 250 bytes
    "two\nlines.png": (red(), RED),
    os.fsdecode(b"no text \xff\xfe.png"): (red(), RED),
}
SKIPPED = {  # name -> (bytes, what is said)
    "empty.png": (b"", "cannot identify"),
    "truncated.jpg": (NOISE[: len(NOISE) // 2], "truncated"),
    "truncated.png": (red()[:50], ""),
    "text.jpg": (b"not an image", "cannot identify"),
    "bomb.png": (BOMB, "decompression bomb"),
    "two\nbad lines.png": (b"", "cannot identify"),
    os.fsdecode(b"neither text \xff nor image.png"): (b"", "cannot identify"),
}
LINKS = {  # name -> (where it leads, what is said)
    "link to nothing.png": ("nothing", "No such file"),
    "link to itself.png": ("link to itself.png", "Too many levels"),
}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    root = tmp_path_factory.mktemp("hostile")
    for name, (data, _) in (READ | SKIPPED).items():
        (root / name).write_bytes(data)
    for name, (target, _) in LINKS.items():
        (root / name).symlink_to(target)
    os.mkfifo(root / "pipe.png")  # without a writer, reading it would wait for ever
    (root / "up").symlink_to(root, target_is_directory=True)
    return root


FAILING = SKIPPED | LINKS | {"pipe.png": (None, "not a regular file")}


@each_kind
def test_every_file_is_trained_on_or_named(hostile, kind):
    source, said = open_source(str(hostile), 16), []
    n = len(source.train)
    assert n == len(READ) + len(FAILING)
    loader = kind(source.train, 16, CPU, 2, said.append)
    batches = loader.training(ShuffledSampler(n, 0), 4, range(2 * n // 4), 0, 1)  # two epochs
    met = [
        (int(epoch), source.train.paths[id].name)
        for batch in batches
        for id, epoch, weight in zip(batch.ids, batch.epochs, batch.weights)
        if weight > 0
    ]
    assert sorted(met) == sorted((epoch, name) for epoch in range(2) for name in READ), "once an epoch, nothing twice"
    assert loader.skipped == {str(hostile / name) for name in FAILING}
    assert len(READ) + len(loader.skipped) == n
    assert len(said) == len(FAILING) and not any("\n" in line for line in said)
    for name, (_, reason) in FAILING.items():
        [line] = [line for line in said if repr(name)[1:-1] in line]
        assert reason in line


def test_every_file_is_described_as_read_or_named(hostile):
    source = open_source(str(hostile), 16)
    record = describe(source, source, "hostile", Effort(), lambda *_: None)
    found = record.splits["train"]
    assert found.looked_at == found.decoded == found.images == len(READ) + len(FAILING)
    reasons = {one.name: one.reason for one in found.unreadable}
    assert reasons.keys() == {repr(str(hostile / name))[1:-1] for name in FAILING}
    for name, (_, reason) in FAILING.items():
        assert reason in reasons[repr(str(hostile / name))[1:-1]]
    headers = sum(found.formats.values())
    assert headers == sum(found.modes.values()) == len(READ) + 2, "of those that are cut off, too"
    record.write(hostile.with_suffix(".json"))
    assert DatasetRecord.read(hostile.with_suffix(".json")) == record, "whatever bytes are in names"


@pytest.fixture(scope="module")
def stored(request, tmp_path_factory):
    """The same files, by numbers, in shards of each kind."""
    place = tmp_path_factory.mktemp("stored")
    contents = [data for data, _ in (READ | SKIPPED).values()]
    endings = [os.path.splitext(name)[1] for name in READ | SKIPPED]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TILESPIN_CACHE", str(place / "cache"))
        yield store(request.param, place, {f"{i:03d}{end}": of for i, (end, of) in enumerate(zip(endings, contents))})


@each_kind
@each_plain_source
def test_every_image_of_any_source_is_trained_on_or_named(stored, kind):
    said, n = [], len(READ) + len(SKIPPED)
    assert len(stored) == n
    loader = kind(stored, 16, CPU, 2, said.append)
    met = [
        (int(epoch), int(id))
        for batch in loader.training(make_sampler(stored, 0), 3, range(2 * n // 3), 0, 1)  # two epochs
        for id, epoch, weight in zip(batch.ids, batch.epochs, batch.weights)
        if weight > 0
    ]
    assert sorted(met) == [(epoch, id) for epoch in range(2) for id in range(len(READ))]
    assert loader.skipped == {stored.name(id) for id in range(len(READ), n)} and len(said) == len(SKIPPED)
    for id, (_, reason) in enumerate(SKIPPED.values(), start=len(READ)):
        [line] = [line for line in said if stored.name(id) in line]
        assert reason in line and "\n" not in line


@pytest.mark.parametrize("name", READ)
def test_what_can_be_read_has_the_right_color(hostile, name):
    boxes, buffer = np.array([CENTER, (0.3, 0.99, 0.99)]), Buffer()
    assert not any(buffer.decode(Files([hostile / name], np.zeros(1)), 0, 16) for _ in boxes)
    pixels = crop_resize(torch.from_numpy(buffer.memory), np.array(buffer.regions), boxes, 16)
    assert pixels.shape == (2, 16, 16, 3)
    assert (pixels.int() - torch.tensor(READ[name][1])).abs().max() <= 4


def test_a_bomb_takes_no_memory(hostile):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3):
        with pytest.raises(UNREADABLE, match="3600000000 pixels"):
            read_image(lambda: (hostile / "bomb.png").open("rb"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def test_only_broken_images_to_train_on_are_refused_at_once(tmp_path):
    """Whole ones among the test images do not help."""
    for name in ("train/a/1.png", "train/b/2.png", "test/a/3.png", "test/b/4.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(red() if "test" in name else b"broken")
    with pytest.raises(UserError, match="none of its 2 images to train on can be decoded") as refused:
        open_source(str(tmp_path))
    assert "\n" not in str(refused.value)


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    (tmp_path / "locked").mkdir()
    (tmp_path / "1.png").write_bytes(red())
    scandir = os.scandir

    def deny(path):
        if os.fspath(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", deny)
    [note] = open_source(str(tmp_path)).notes
    assert "left out" in note and "locked" in note
