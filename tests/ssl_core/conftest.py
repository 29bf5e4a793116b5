"""Fixtures for the tests of data, tasks and evaluation."""

from pathlib import Path

import pytest
from PIL import Image
from support.jpegs import jpeg, picture, put
from support.synthetic_images import gradients
from support.tar_files import labeled, write

from ssl_core.data.dataset import Files


@pytest.fixture(autouse=True)
def fresh_sources():
    """A process opens a dataset once; a test opens its own."""
    from ssl_core.data.dataset import open_source

    open_source.cache_clear()


@pytest.fixture
def cache(tmp_path_factory, monkeypatch) -> Path:
    """A new folder in place of the cache that all processes of this machine share."""
    place = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("TILESPIN_CACHE", str(place))
    return place


@pytest.fixture
def shards(tmp_path, cache) -> Path:
    """Three tar files of ten images in two classes."""
    for number in range(3):
        write(tmp_path / "data" / f"set-{number}.tar", labeled(number * 10, 10))
    return tmp_path / "data"


@pytest.fixture(scope="session")
def mixed(tmp_path_factory) -> Path:
    """Two classes of 15: JPEG, PNG, CMYK, gray, large and small; three more that cannot be decoded."""
    root = tmp_path_factory.mktemp("mixed")
    for i in range(30):
        image = Image.fromarray(gradients(1, (40, 90, 200)[i % 3], seed=i)[0].numpy())
        image = image.resize((image.width * 3 // 2, image.height))
        image = image.quantize(64, dither=0) if i % 5 == 4 else image.convert(("RGB", "CMYK", "L", "RGB")[i % 5])
        path = root / "ab"[i % 2] / f"{i:02d}.{'png' if i % 5 > 2 else 'jpg'}"
        path.parent.mkdir(exist_ok=True)
        image.save(path)
    whole = (root / "a" / "00.jpg").read_bytes()
    (root / "a" / "cut.jpg").write_bytes(whole[: len(whole) // 3])
    (root / "b" / "empty.png").write_bytes(b"")
    (root / "b" / "text ü.jpg").write_text("not an image")
    return root


@pytest.fixture
def jpegs(tmp_path) -> Files:
    """JPEGs of many shapes, all large enough to be shrunk for a crop of 16 px, and none for one of SIDE."""
    shapes = [(90 + 7 * i, 140 - 3 * i) for i in range(12)]
    return put(tmp_path, *(jpeg(picture(*shape, seed), quality=95) for seed, shape in enumerate(shapes)))
