"""A folder of images and its packed dataset, on this machine, on an S3 server and on a web server that fails."""

import shutil
import threading
from pathlib import Path

import fsspec
import pytest
from PIL import Image
from support.packing import pack
from support.remote import CLASSES, EACH, SHARDS, name_of
from support.s3_server import s3_server
from support.synthetic_images import gradients
from support.webserver import WebServer

from ssl_core.data.dataset import open_source
from ssl_core.storage import retry, store_requests


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """Two classes of 30 PNG images, one of them broken."""
    root = tmp_path_factory.mktemp("insects")
    for i, image in enumerate(gradients(EACH * len(CLASSES), 24).numpy()):
        path = root / CLASSES[i % 2] / f"{i:03d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)
    (root / "ant" / "000.png").write_bytes(b"no image")
    (root / "notes.txt").write_text("these are insects")
    return root


@pytest.fixture(scope="session")
def packed(folder, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("packed")
    pack(open_source(str(folder)), root, per_shard=4, side=24, lossless=True)
    assert len(open_source(str(root)).train.counts()) == SHARDS
    return root


@pytest.fixture(scope="module")
def s3(folder, packed):
    """s3://bucket with `insects` and `packed`, on moto's server."""
    with s3_server() as settings, pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        filesystem = fsspec.filesystem("s3")
        filesystem.mkdir("bucket")
        for root in (folder, packed):
            filesystem.put(f"{root}/", f"bucket/{name_of(root)}/", recursive=True)
        yield "s3://bucket"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """A cache of this test's own."""
    monkeypatch.setenv("TILESPIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "remote"


@pytest.fixture
def hasty(monkeypatch):
    """Waits are short."""
    monkeypatch.setattr(retry, "LONG_S", 30.0)
    # an earlier test's unanswered questions are none of this one's
    monkeypatch.setattr(store_requests, "_slots", threading.Semaphore(store_requests.MAX_CONCURRENT))
    monkeypatch.setattr(store_requests, "FIRST_WAIT_S", 0.01)


@pytest.fixture
def web(folder, packed, tmp_path, hasty):
    root = tmp_path / "served"
    for found in (folder, packed):
        shutil.copytree(found, root / name_of(found))
    server = WebServer(root)
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()
