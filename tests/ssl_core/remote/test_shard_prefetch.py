"""Shards are fetched before training asks for them."""

import itertools
import threading
import time

import numpy as np
import pytest
from support.remote import SHARDS, shard_bytes

from ssl_core.data.dataset import open_source
from ssl_core.data.loaders import shard_prefetch as prefetch
from ssl_core.data.loaders.shard_prefetch import prefetch_shards
from ssl_core.data.sampler import WINDOW, make_sampler
from ssl_core.storage import object_cache

pytestmark = pytest.mark.network


def test_the_next_window_is_fetched_ahead(web, cache):
    source = open_source(f"{web.url}/packed")
    order = make_sampler(source.train, 0)
    first, second = (set(order.shards(0, number)) for number in (0, 1))
    assert len(first) == WINDOW and first | second == set(range(SHARDS))
    web.gets.clear()
    slices = (np.arange(step * 4, (step + 1) * 4) for step in itertools.count())
    stream = prefetch_shards(source.train, order, slices)
    assert np.array_equal(next(stream), np.arange(4))
    until = time.monotonic() + 20
    while sum(name.endswith(".tar") for name in web.gets) < SHARDS and time.monotonic() < until:
        time.sleep(0.02)
    assert {int(name[6:12]) for name in web.gets} == first | second
    assert np.array_equal(next(stream), np.arange(4, 8))
    stream.close()
    for i in range(len(source.train)):
        source.train.open(i)
    assert set(web.gets.values()) == {1}
    near = open_source(str(web.root / "packed"))
    assert [len(p) for p in prefetch_shards(near.train, make_sampler(near.train, 0), iter([np.arange(3)]))] == [3]


def test_a_stream_ends_while_its_fetchers_take_the_last_shard(web, monkeypatch):
    """Between a stat at the queue and the get."""

    class Raced(prefetch.SimpleQueue):
        def empty(self) -> bool:
            return False

    source = open_source(f"{web.url}/packed")
    monkeypatch.setattr(prefetch, "SimpleQueue", Raced)
    stream = prefetch_shards(source.train, make_sampler(source.train, 0), iter([np.arange(4)] * 2))
    next(stream)
    closing = threading.Thread(target=stream.close, daemon=True)
    closing.start()
    closing.join(5)
    assert not closing.is_alive()


def test_prefetching_draws_a_slice_when_it_is_asked_for(web):
    """Another window is begun with its first slice and not before, whatever was drawn already."""
    source = open_source(f"{web.url}/packed")
    order, drawn = make_sampler(source.train, 0), []
    begun = [window for step in range(12) for window in order.windows(np.arange(step * 4, step * 4 + 4))]
    assert begun == sorted(begun) and len(set(begun)) > 2
    slices = (drawn.append(step) or np.arange(step * 4, step * 4 + 4) for step in range(12))
    stream = prefetch_shards(source.train, order, slices)
    assert drawn == []
    for step in range(12):
        assert next(stream)[0] == step * 4 and drawn == list(range(step + 1))
    stream.close()


def test_prefetching_leaves_room_for_the_window(web, cache, monkeypatch):
    monkeypatch.setenv(
        object_cache.LIMIT_VARIABLE, str((WINDOW + 2) * shard_bytes(open_source(f"{web.url}/packed")) / 1e9)
    )
    open_source.cache_clear()
    source = open_source(f"{web.url}/packed")
    order = make_sampler(source.train, 0)
    web.gets.clear()
    stream = prefetch_shards(source.train, order, iter([np.arange(4), np.arange(4, 8)]))
    next(stream)
    until = time.monotonic() + 20
    while sum(web.gets.values()) < WINDOW + 2 and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.2)
    assert {int(name[6:12]) for name in web.gets} == {*order.shards(0, 0), *order.shards(0, 1)[:2]}
