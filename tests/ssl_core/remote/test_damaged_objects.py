"""Objects of a store that are gone, of another size, too large or damaged, and URLs that cannot be opened."""

import shutil

import numpy as np
import pytest
from support.remote import CLASSES, CPU, EACH, pixels_of

from ssl_core.data import remote
from ssl_core.data.dataset import open_source
from ssl_core.data.loaders.cpu import CpuLoader
from ssl_core.data.sampler import make_sampler
from ssl_core.errors import StorageError, UserError
from ssl_core.storage import object_cache, retry
from ssl_core.storage.object_cache import open_cached
from ssl_core.storage.object_store import Object, stat

pytestmark = [pytest.mark.network, pytest.mark.slow]


def test_an_object_of_another_size_than_listed_is_not_taken_for_it(web, monkeypatch):
    monkeypatch.setattr(retry, "LONG_S", 0.1)
    (web.root / "a.bin").write_bytes(b"hello")
    with pytest.raises(StorageError, match="5 bytes came instead of 6"):
        open_cached(Object(f"{web.url}/a.bin", 6, "1"))
    assert len(open_cached(stat(f"{web.url}/a.bin")).read()) == 5


def test_a_file_that_is_gone_is_skipped_and_named(web):
    source = open_source(f"{web.url}/insects")
    gone = source.train.name(5)
    web.trouble = lambda name, number: "404" if gone.endswith(name) else ""
    said: list[str] = []
    loader = CpuLoader(source.train, 16, CPU, 1, said.append)
    list(loader.training(make_sampler(source.train, 0), 9, range(9), 0, 1))
    assert gone in loader.skipped and sum(gone in line for line in said) == 1


def test_one_file_of_a_folder_that_is_gone_or_of_unknown_size_is_left_out(web):
    bees = web.root / "insects" / "bee é"
    (bees / "001.png").unlink()
    (bees / "001.png").symlink_to(bees / "nowhere.png")
    web.unsized.add("003.png")
    source = open_source(f"{web.url}/insects")
    assert len(source.train) + len(source.test) == EACH * len(CLASSES) - 2
    (said,) = (note for note in source.notes if "left out, such as" in note)
    assert said.startswith("2 files are left out, such as ")
    assert "001.png: not found; " in said and said.endswith("003.png: the store does not tell its size")


def test_an_image_larger_than_any_or_than_the_cache_costs_only_itself(web, monkeypatch):
    large = web.root / "insects" / "bee é" / "001.png"
    large.write_bytes(large.read_bytes() + bytes(100_000))
    monkeypatch.setenv(object_cache.LIMIT_VARIABLE, "5e-5")
    files = open_source(f"{web.url}/insects").train
    number = next(i for i in range(len(files)) if files.size(i) > 1e5)
    said: list[str] = []
    list(CpuLoader(files, 16, CPU, 1, said.append).evaluation(np.arange(len(files))))
    assert sum("are more than an image has" in line and files.name(number) in line for line in said) == 1
    monkeypatch.setenv(object_cache.LIMIT_VARIABLE, "50")
    assert files.open(number).read()
    monkeypatch.setattr(remote, "MAX_IMAGE_BYTES", 100_000)
    with pytest.raises(ValueError, match="more than an image has"):
        files.open(number)


def test_a_large_object_comes_in_parts_and_only_the_failed_part_again(web, monkeypatch):
    monkeypatch.setattr(object_cache, "PART_BYTES", 1000)
    path = web.root / "large.bin"
    path.write_bytes(np.random.default_rng(0).bytes(4500))
    thing = stat(f"{web.url}/large.bin")
    assert thing.size == 4500
    web.gets.clear()
    web.trouble = lambda name, number: "cut" if number in (1, 3) else ""
    assert open_cached(thing).read() == path.read_bytes() and web.gets["large.bin"] == 5 + 2


def test_shards_are_checked_against_the_index(web):
    source = open_source(f"{web.url}/packed")
    web.trouble = lambda name, number: "damage" if number == 0 else ""
    assert pixels_of(source) == pixels_of(open_source(str(web.root / "packed"))), "damaged on its way: fetched again"
    shutil.rmtree(object_cache._cache_root())
    web.trouble = lambda name, number: "damage"
    with pytest.raises(StorageError, match="other bytes than its index says"):
        source.train.open(0)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://me:secret@127.0.0.1/x", "not as a password"),
        ("https://127.0.0.1/x?X-Amz-Signature=secret", "not as a password"),
        ("sftp://127.0.0.1/x", r"pip install 'fsspec\[sftp\]'"),
    ],
)
def test_what_is_said_of_urls(url, words):
    with pytest.raises(UserError, match=words) as error:
        open_source(url)
    assert "secret" not in str(error.value)


def test_a_damaged_or_unfinished_upload_is_refused(web):
    (web.root / "packed" / "packed.npy").write_bytes(b"?")
    with pytest.raises(UserError, match=r"packed.npy.* other bytes"):
        open_source(f"{web.url}/packed")
    (web.root / "packed" / "index.json").write_text("{")
    with pytest.raises(UserError, match=r"index.json is damaged"):
        open_source(f"{web.url}/packed")
    (web.root / "packed" / "index.json").unlink()
    with pytest.raises(UserError, match=r"packed.* no images in this folder"):
        open_source(f"{web.url}/packed")
