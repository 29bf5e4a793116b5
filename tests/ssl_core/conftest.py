"""Lets tests, and the processes that they start, import the helper modules that lie in this folder."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def fresh_sources():
    """A process opens a dataset once; a test opens its own."""
    from ssl_core.data.source import open_source

    open_source.cache_clear()
