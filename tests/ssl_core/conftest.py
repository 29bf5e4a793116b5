"""Fixtures for the tests of data, tasks and evaluation."""

from pathlib import Path

import pytest
from support.tar_files import labeled, write


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
