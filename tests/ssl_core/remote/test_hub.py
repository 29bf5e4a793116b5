"""A dataset of the Hugging Face Hub, through the file system of its own library."""

import random

import fsspec
import pytest
from support.hub import Hub
from support.parquet_files import classes, labeled, write
from support.remote import check_each_once, trained

from ssl_core.data.dataset import open_source
from ssl_core.errors import UserError
from ssl_core.storage.object_cache import PART_BYTES

pytest.importorskip("huggingface_hub")
pytestmark = [pytest.mark.network, pytest.mark.slow]


@pytest.fixture
def hub(tmp_path, monkeypatch, hasty):
    labeled(tmp_path / "hub" / "data" / "train-00000-of-00002.parquet", 0, 10)
    large = [random.Random(i).randbytes(PART_BYTES // 8) for i in range(20)]
    write(tmp_path / "hub" / "data" / "train-00001-of-00002.parquet", large, {"label": classes("cat", "dog")}, 6)
    labeled(tmp_path / "hub" / "data" / "test-00000-of-00001.parquet", 100, 4)
    with Hub(tmp_path / "hub") as server:
        monkeypatch.setitem(fsspec.config.conf, "hf", {"endpoint": server.url, "token": False})
        yield server


def test_trains_from_the_hub_and_fetches_little_more_than_once(hub):
    source, local = open_source("hf://datasets/owner/name"), open_source(str(hub.folder))
    assert source.digest == local.digest and source.classes == local.classes == ("cat", "dog")
    steps = range(-(-2 * len(source.train) // 9))
    check_each_once(source, trained(source, steps), 2, broken=20)
    for path in hub.folder.rglob("*.parquet"):
        assert hub.sent[path.name] < 1.2 * path.stat().st_size + 50_000


def test_what_is_not_there(hub):
    with pytest.raises(UserError, match="nothing is there"):
        open_source("hf://datasets/owner/name/absent")
