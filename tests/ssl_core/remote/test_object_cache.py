"""The cache of what was fetched: its bound, what it removes first, faults of its disk, and limits that are refused."""

import errno
import os
import shutil
import threading
import time

import pytest
from support.packing import pack
from support.remote import check_each_once, held, shard_bytes, trained

from ssl_core.data.dataset import open_source
from ssl_core.data.sampler import WINDOW
from ssl_core.errors import StorageError, UserError
from ssl_core.storage import object_cache
from ssl_core.storage.object_cache import open_cached
from ssl_core.storage.object_store import stat

pytestmark = pytest.mark.network


def test_the_cache_keeps_its_bound_in_training(web, cache, monkeypatch):
    source = open_source(f"{web.url}/packed")
    shutil.rmtree(cache)
    limit = (WINDOW + 1) * shard_bytes(source)
    monkeypatch.setenv(object_cache.LIMIT_VARIABLE, str(limit / 1e9))
    open_source.cache_clear()
    source = open_source(f"{web.url}/packed")
    most, done = [0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            most[0] = max(most[0], held(cache))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        batches = trained(source, range(-(-4 * len(source.train) // 9)))
    finally:
        done.set()
        watcher.join()
    check_each_once(source, batches, 4)
    assert limit - shard_bytes(source) < most[0] <= limit
    assert not list(cache.rglob("*.part"))
    shards = [count for name, count in web.gets.items() if name.endswith(".tar")]
    # at each edge of two windows, batches that are read ahead want shards of both, which the cache has no room for: how
    # many are fetched again depends on who comes first, but none needs to be twice
    seen = 4 * len(source.train.counts())
    assert sum(shards) <= seen + WINDOW * (-(-seen // WINDOW) - 1), "fetched again at an edge alone"


def test_packing_what_is_packed_in_a_store_does_not_jump_about(web, tmp_path, monkeypatch):
    """However small the cache, each shard is fetched once or twice."""
    monkeypatch.setenv(
        object_cache.LIMIT_VARIABLE, str((WINDOW + 1) * shard_bytes(open_source(f"{web.url}/packed")) / 1e9)
    )
    open_source.cache_clear()
    source = open_source(f"{web.url}/packed")
    shutil.rmtree(object_cache._cache_root())
    web.gets.clear()
    index = pack(source, tmp_path / "again", per_shard=10, side=16)
    assert index.images == len(source.train) + len(source.test)
    assert max(web.gets.values()) <= 2, "once to judge sizes, once to pack"


def test_what_was_not_used_for_longest_goes_first(web, monkeypatch):
    things = []
    for i in range(4):
        (web.root / f"{i}.bin").write_bytes(bytes(1000))
        things.append(stat(f"{web.url}/{i}.bin"))
    web.gets.clear()
    monkeypatch.setenv(object_cache.LIMIT_VARIABLE, "3e-6")
    for number in (0, 1, 2, 0, 3):  # 1 goes
        open_cached(things[number]).close()
        time.sleep(0.01)
    for number in (0, 2, 3):
        open_cached(things[number]).close()
    assert max(web.gets.values()) == 1
    open_cached(things[1]).close()
    assert web.gets["1.bin"] == 2
    (web.root / "large.bin").write_bytes(bytes(3001))
    with pytest.raises(StorageError, match="more than TILESPIN_CACHE_GB allows"):
        open_cached(stat(f"{web.url}/large.bin"))


def test_an_evicted_shard_frees_its_space_at_once(web):
    """No descriptor keeps it."""
    source = open_source(f"{web.url}/packed")
    for i in range(len(source.train)):
        source.train.open(i)
    links = [
        os.readlink(f"/proc/self/fd/{number}")
        for number in os.listdir("/proc/self/fd")
        if os.path.lexists(f"/proc/self/fd/{number}")
    ]
    assert not [link for link in links if str(object_cache._cache_root()) in link]


def test_a_changed_object_is_fetched_anew(web):
    path = web.root / "a.bin"
    for data in (b"old", b"new"):
        path.write_bytes(data)
        assert open_cached(stat(f"{web.url}/a.bin")).read() == data


def full(*_) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def refused(*_) -> None:
    raise PermissionError(errno.EPERM, "Operation not permitted")


def vanished(*_) -> None:
    raise FileNotFoundError(errno.ENOENT, "No such file or directory")


@pytest.mark.parametrize(
    ("place", "name", "fault"),
    [
        ("pathlib.Path", "mkdir", full),
        ("os", "open", full),
        ("os", "open", vanished),
        ("fcntl", "flock", full),
        ("os", "ftruncate", full),
        ("os", "replace", vanished),
    ],
)
def test_a_fault_of_the_disk_is_not_taken_for_one_of_the_image(web, cache, monkeypatch, place, name, fault):
    """Each image would be skipped."""
    files = open_source(f"{web.url}/insects").train
    shutil.rmtree(cache)
    with monkeypatch.context() as patch:
        patch.setattr(f"{place}.{name}", lambda *_, **__: fault())
        with pytest.raises(StorageError, match="cannot be kept in"):
            files.open(1)
    assert files.open(1).read(4)


def test_a_cache_of_another_user_is_read(web, monkeypatch):
    (web.root / "a.bin").write_bytes(b"hello")
    thing = stat(f"{web.url}/a.bin")
    open_cached(thing).close()
    monkeypatch.setattr(os, "utime", refused)
    assert open_cached(thing).read() == b"hello"


@pytest.mark.parametrize("told", ["much", "0", "-1", "nan"])
def test_the_limit_has_to_be_a_number(web, monkeypatch, told):
    monkeypatch.setenv(object_cache.LIMIT_VARIABLE, told)
    with pytest.raises(UserError, match=f"TILESPIN_CACHE_GB is '{told}'"):
        open_source(f"{web.url}/packed")


def test_a_cache_too_small_for_a_window_is_refused(web, monkeypatch):
    monkeypatch.setenv(object_cache.LIMIT_VARIABLE, str(WINDOW * shard_bytes(open_source(f"{web.url}/packed")) / 1e9))
    open_source.cache_clear()
    with pytest.raises(UserError, match=r"needs TILESPIN_CACHE_GB of \S+ at least"):
        open_source(f"{web.url}/packed")
