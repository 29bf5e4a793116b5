"""Several processes that share the cache of what was fetched."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.remote import held

from ssl_core.storage import object_cache
from ssl_core.storage.object_cache import open_cached
from ssl_core.storage.object_store import Object, stat

pytestmark = [pytest.mark.network, pytest.mark.slow]

FETCH = """
import sys
from ssl_core.storage.object_cache import open_cached
from ssl_core.storage.object_store import Object
from concurrent.futures import ThreadPoolExecutor
things = [Object(url, int(size), "1") for url, size in (line.split() for line in sys.stdin)]
with ThreadPoolExecutor(8) as pool:
    assert [len(open_cached(t).read()) for t in things] == [t.size for t in things]
    assert [t.size for t in things] == list(pool.map(lambda t: len(open_cached(t).read()), things))
"""


def fetcher(things: list[Object]) -> subprocess.Popen:
    child = subprocess.Popen(
        [sys.executable, "-c", FETCH],
        stdin=subprocess.PIPE,
        text=True,
        cwd=Path.cwd(),
        env={**os.environ, "PYTHONPATH": str(Path(object_cache.__file__).parents[2])},
    )
    child.stdin.write("".join(f"{thing.url} {thing.size}\n" for thing in things))
    child.stdin.close()
    return child


def test_several_processes_fetch_a_shard_once(web):
    for i in range(20):
        (web.root / f"{i}.bin").write_bytes(bytes(50_000 + i))
    things = [Object(f"{web.url}/{i}.bin", 50_000 + i, "1") for i in range(20)]
    web.trouble = lambda name, number: "slow"
    assert [child.wait() for child in [fetcher(things) for _ in range(3)]] == [0, 0, 0]
    assert len(web.gets) == 20 and set(web.gets.values()) == {1}


def test_several_processes_keep_the_bound_together(web, cache, monkeypatch):
    for i in range(30):
        (web.root / f"{i}.bin").write_bytes(bytes(50_000 + i))
    things = [Object(f"{web.url}/{i}.bin", 50_000 + i, "1") for i in range(30)]
    monkeypatch.setenv(object_cache.LIMIT_VARIABLE, "0.0003")
    children, most = [fetcher(things), fetcher(things[::-1])], 0
    while any(child.poll() is None for child in children):
        most = max(most, held(cache))
    assert [child.wait() for child in children] == [0, 0]
    assert 200_000 < most <= 300_000


def test_a_fetch_that_was_killed_leaves_nothing_in_the_way(web, cache, monkeypatch):
    path = web.root / "a.bin"
    path.write_bytes(bytes(1000))
    thing = stat(f"{web.url}/a.bin")
    web.trouble = lambda name, number: "hang" if number == 0 else ""
    child = fetcher([thing._replace(stamp="1")])
    while not (web.gets and [part for part in cache.rglob("*.part") if part.stat().st_size]):  # it has room, and waits
        assert child.poll() is None
        time.sleep(0.01)
    child.kill()
    child.wait()
    monkeypatch.setenv(object_cache.LIMIT_VARIABLE, "1.5e-6")
    assert len(open_cached(thing).read()) == 1000, "the torn file is gone for it"
    assert held(cache) == 1000
