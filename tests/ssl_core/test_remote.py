"""Data in a store: an S3 server on this machine, a web server that fails in every way, and the cache between."""

import errno
import fcntl
import itertools
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image
from support.command import complaint
from support.packing import pack
from support.s3_server import s3_server
from support.synthetic_images import gradients
from support.webserver import WebServer

from ssl_core.data import remote
from ssl_core.data.dataset import Source, open_source
from ssl_core.data.loaders import shard_prefetch as prefetch
from ssl_core.data.loaders.cpu import CpuLoader
from ssl_core.data.loaders.shard_prefetch import prefetch_shards
from ssl_core.data.remote import RemoteFiles
from ssl_core.data.sampler import WINDOW, make_sampler
from ssl_core.errors import StorageError, UserError
from ssl_core.storage import object_cache, retry, store_requests
from ssl_core.storage.object_cache import open_cached
from ssl_core.storage.object_store import Object, stat
from ssl_core.storage.retry import cancel_on, short_deadline

CPU = torch.device("cpu")
CLASSES, EACH = ("ant", "bee é"), 30
SHARDS = 12  # of the packed training images: more than a window


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
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


def name_of(root: Path) -> str:
    return root.name.rstrip("0123456789")


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


def trained(source: Source, steps: range, world: int = 1, batch: int = 9) -> list:
    """The batches of all workers, each with a loader of its own, in the order of the stream; said: the warnings."""
    order, split = make_sampler(source.train, 3), source.train
    streams = [
        CpuLoader(split, 16, CPU, 2, lambda said: None).training(order, batch, steps, rank, world)
        for rank in range(world)
    ]
    return [part for parts in zip(*streams) for part in parts]


def check_each_once(source: Source, batches: list, epochs: int, broken: int = 0) -> None:
    met = [(epoch, id) for batch in batches for epoch, id in zip(batch.epochs.tolist(), batch.ids.tolist())]
    whole = [one for one in met if one[0] < epochs]
    assert len(set(whole)) == len(whole) == epochs * (len(source.train) - broken)


def pixels_of(source: Source) -> dict[tuple[int, bytes], int]:
    """How often each image, whole, with its label comes."""
    batches = list(CpuLoader(source.train, 24, CPU, 2, lambda said: None).evaluation(np.arange(len(source.train))))
    found = [(label, image.numpy().tobytes()) for b in batches for image, label in zip(b.images, b.labels.tolist())]
    return {one: found.count(one) for one in found}


# S3


@pytest.mark.parametrize("world", [1, 3])
def test_trains_from_a_packed_dataset_on_s3(s3, packed, world):
    source, local = open_source(f"{s3}/packed/"), open_source(str(packed))
    steps = range(-(-3 * len(source.train) // 9))
    batches = trained(source, steps, world)
    check_each_once(source, batches, 3)
    for batch in batches:
        assert torch.equal(batch.labels, torch.from_numpy(local.train.labels)[batch.ids]) and batch.weights.all()
    alone = trained(source, steps)
    assert torch.equal(torch.cat([b.images for b in batches]), torch.cat([b.images for b in alone]))
    restarted = trained(source, range(5, steps.stop), 2)
    assert torch.equal(torch.cat([b.ids for b in restarted]), torch.cat([b.ids for b in alone[5:]]))


def test_a_packed_dataset_is_the_same_anywhere_but_for_its_order(s3, packed):
    source, local = open_source(f"{s3}/packed"), open_source(str(packed))
    assert (source.classes, source.mean, source.size, source.name) == (local.classes, local.mean, local.size, "packed")
    assert pixels_of(source) == pixels_of(local)
    assert source.digest != local.digest, "another order gives other weights"
    assert len(source.test) == len(local.test) > 0
    assert source.test.open(0).read() == local.test.open(0).read() and source.test.name(0) == local.test.name(0)


@pytest.mark.parametrize("kind", ["s3", "web", "memory", "file"])
def test_a_folder_in_a_store_is_the_same_as_on_the_disk(kind, folder, request):
    if kind == "memory":
        fsspec.filesystem("memory").put(f"{folder}/", "/stored/insects/", recursive=True)
        url = "memory://stored"
    elif kind == "file":
        url = f"file://{folder.parent}"
    else:
        url = request.getfixturevalue(kind)
        url = url if kind == "s3" else url.url
    source, local = open_source(f"{url}/{folder.name if kind == 'file' else 'insects'}"), open_source(str(folder))
    assert source.digest == local.digest and source.classes == local.classes == CLASSES
    assert source.notes == local.notes
    for split, same in ((source.train, local.train), (source.test, local.test)):
        assert [split.open(i).read() for i in range(len(split))] == [p.read_bytes() for p in same.paths]
        assert split.labels.tolist() == same.labels.tolist()


def test_trains_from_a_folder_on_s3(s3):
    source = open_source(f"{s3}/insects")
    assert isinstance(source.train, RemoteFiles)
    broken = [i for i in range(len(source.train)) if source.train.name(i) == f"{s3}/insects/ant/000.png"]
    said: list[str] = []
    loader = CpuLoader(source.train, 16, CPU, 2, said.append)
    steps = range(-(-2 * len(source.train) // 8))
    check_each_once(source, list(loader.training(make_sampler(source.train, 1), 8, steps, 0, 1)), 2, len(broken))
    assert len(said) == len(broken) and all("s3://bucket/insects/ant/000.png" in line for line in said)


def test_packs_what_is_on_s3(s3, folder, tmp_path):
    """The digest and the images are those of the folder, so every byte is."""
    for name, data in (("near", str(folder)), ("far", f"{s3}/insects")):
        pack(open_source(data), tmp_path / name, per_shard=20, side=16)
    near, far = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("near", "far"))
    assert near.pop("skipped.txt") != far.pop("skipped.txt"), "names what was skipped by its URL"
    assert near == far and len(near) > 4


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
    assert index["images"] == len(source.train) + len(source.test)
    assert max(web.gets.values()) <= 2, "once to judge sizes, once to pack"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pretrain", "rotnet", "--data", "s3://bucket/absent"], "s3://bucket/absent: nothing is there"),
        (["pretrain", "rotnet", "--data", "s3://none/x"], "s3://none/x: nothing is there"),
        (["pretrain", "rotnet", "--data", "s3://bucket/insects/notes.txt"], "nothing is there"),
        (["pretrain", "rotnet", "--data", "nosuch://x/y"], "Protocol not known: nosuch"),
        (["pack", "s3://bucket/absent", "no/such/place"], "s3://bucket/absent: nothing is there"),
        (["pack", "s3://bucket/insects", "s3://bucket/out"], "is a URL, expected a new folder"),
    ],
)
def test_a_bad_url_is_one_line(s3, tilespin, arguments, words):
    error = complaint(tilespin(*arguments, code=2).stderr)
    assert error.count("\n") == 1 and words in error


def test_pretrain_and_pack_on_the_command_line(s3, tilespin, tmp_path):
    done = tilespin("pack", f"{s3}/insects", tmp_path / "small", "--side", 16)
    assert "1 that cannot be decoded" in done.stdout
    arguments = ["--data", f"{s3}/packed", "--size", 16, "--steps", 3, "--batch", 8, "--wandb", "off"]
    done = tilespin("pretrain", "rotnet", *arguments, "--storage", tmp_path / "runs")
    assert "3 steps, 24 images" in done.stdout
    (config,) = tmp_path.glob("runs/packed/pretrain/*/config.json")
    assert f"{s3}/packed" in config.read_text()


def test_no_credentials(s3, monkeypatch, hasty):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", "/nonexistent")
    fsspec.filesystem("s3").clear_instance_cache()
    with pytest.raises(UserError, match="no permission"):
        open_source(f"{s3}/packed")
    fsspec.filesystem("s3").clear_instance_cache()


# A store that fails


TROUBLES = ["slow", "503", "429", "reset", "cut", "hang"]


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("kind", ["insects", "packed"])
def test_a_store_that_fails_for_a_while_only_delays(web, monkeypatch, kind, trouble):
    """Each file's first two requests go wrong, or each of them is slow; a hanging one holds only some files up."""
    if trouble == "hang":
        monkeypatch.setattr(store_requests, "ATTEMPT_TIMEOUT_S", 1.0)
    source = open_source(f"{web.url}/{kind}")
    shutil.rmtree(object_cache._cache_root())
    some = {"packed": "shard-00000", "insects": "01"}[kind]
    web.gets.clear()

    def failing(name: str, number: int) -> str:
        if trouble == "hang":
            return trouble if number == 0 and name.startswith(some) and name[-5] in "02" else ""
        return trouble if number < 2 or trouble == "slow" else ""

    web.trouble = failing
    broken = 1 if kind == "insects" and any("000.png" in source.train.name(i) for i in range(len(source.train))) else 0
    batches = trained(source, range(-(-2 * len(source.train) // 9)))
    check_each_once(source, batches, 2, broken)
    assert all(batch.weights.all() for batch in batches)
    needed, most = {"hang": 2, "slow": 1}.get(trouble, 3), max(web.gets.values())
    # on a busy machine an answer may take as long as one that never comes
    assert most == needed or (trouble == "hang" and most > needed), "asked for until it comes, and then never again"
    assert sum(count >= needed for count in web.gets.values()) >= 2


@pytest.mark.parametrize("trouble", ["503", "500", "429", "cut", "reset", "hang"])
def test_what_s3_says_of_its_failures_is_understood(web, monkeypatch, trouble):
    """Its client has errors of its own, and repeats some requests by itself."""
    s3fs = pytest.importorskip("s3fs")
    if trouble == "hang":
        monkeypatch.setattr(store_requests, "ATTEMPT_TIMEOUT_S", 1.0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"{web.url}/")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    web.trouble = lambda name, number: trouble if number < 3 else ""
    (web.root / "bucket").mkdir()
    (web.root / "bucket" / "a.bin").write_bytes(b"hello")
    assert open_cached(Object("s3://bucket/a.bin", 5, "1")).read() == b"hello"
    assert web.gets["a.bin"] > 3
    for lasting, error in (("403", StorageError), ("404", FileNotFoundError)):
        web.gets.clear()
        web.trouble = lambda name, number, told=lasting: told
        with pytest.raises(error):
            open_cached(Object("s3://bucket/a.bin", 5, lasting))
        assert web.gets["a.bin"] <= 2, "its client asks again by itself where the connection was cut before"
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_dead_store_stops_training_instead_of_costing_its_images(web, monkeypatch):
    """With the images gone that were not reached, the rest would be another dataset."""
    source = open_source(f"{web.url}/packed")
    shutil.rmtree(object_cache._cache_root())
    monkeypatch.setattr(retry, "LONG_S", 0.3)
    web.trouble = lambda name, number: "503"
    with pytest.raises(StorageError, match=r"shard-\d+.tar.*503"):
        trained(source, range(9))


def test_all_that_wait_for_a_dead_store_stop_together(web, monkeypatch):
    """Not one after the other, each with a patience of its own."""
    monkeypatch.setattr(retry, "LONG_S", 0.6)
    monkeypatch.setattr(store_requests, "LONGEST_WAIT_S", 0.1)
    web.trouble = lambda name, number: "503"
    (web.root / "a.bin").write_bytes(b"hello")
    thing, failed = stat(f"{web.url}/a.bin"), []

    def wait() -> None:
        with pytest.raises(StorageError):
            open_cached(thing)
        failed.append(time.monotonic())

    threads, began = [threading.Thread(target=wait) for _ in range(6)], time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failed) == 6 and max(failed) - began < 2.5


def test_who_waits_for_another_is_patient_while_that_gets_on(web, monkeypatch):
    monkeypatch.setattr(retry, "LONG_S", 1.2)
    monkeypatch.setattr(object_cache, "PART_BYTES", 2**15)
    (web.root / "a.bin").write_bytes(bytes(2**20))
    thing, found = stat(f"{web.url}/a.bin"), []
    web.trouble = lambda name, number: "slow"
    threads = [threading.Thread(target=lambda: found.append(len(open_cached(thing).read()))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [2**20] * 3 and web.gets["a.bin"] == 32


@pytest.mark.parametrize("trouble", ["503", "hang"])
def test_nobody_waits_for_what_is_not_wanted_any_more(web, monkeypatch, trouble):
    monkeypatch.setattr(store_requests, "ATTEMPT_TIMEOUT_S", 30.0)
    monkeypatch.setattr(store_requests, "FIRST_WAIT_S", 30.0)
    web.trouble = lambda name, number: trouble
    (web.root / "a.bin").write_bytes(b"hello")
    thing, closed, failed = stat(f"{web.url}/a.bin"), threading.Event(), []

    def wait() -> None:
        cancel_on(closed)
        with pytest.raises(StorageError, match="nobody wants it"):
            open_cached(thing)
        failed.append(1)

    threads = [threading.Thread(target=wait, daemon=True) for _ in range(3)]
    monkeypatch.setattr(retry, "LONG_S", 100.0)
    for thread in threads:
        thread.start()
    while not web.gets["a.bin"]:
        time.sleep(0.01)
    closed.set()
    for thread in threads:
        thread.join(2)
    assert len(failed) == 3
    web.trouble = lambda name, number: ""
    assert open_cached(thing).read() == b"hello", "another stream reads on"


def test_questions_that_were_given_up_do_not_pile_up(web, monkeypatch):
    """They would take the link from those that are asked instead."""
    monkeypatch.setattr(store_requests, "_slots", threading.Semaphore(3))
    monkeypatch.setattr(store_requests, "ATTEMPT_TIMEOUT_S", 0.05)
    monkeypatch.setattr(retry, "LONG_S", 1.0)
    (web.root / "a.bin").write_bytes(b"hello")
    thing = stat(f"{web.url}/a.bin")
    web.trouble = lambda name, number: "hang"
    with pytest.raises(StorageError, match="not answered"):
        open_cached(thing)
    assert web.gets["a.bin"] == 3
    web.released.set()
    assert open_cached(thing).read() == b"hello"


def test_a_slow_link_is_enough():
    """Of 4 Mbit/s."""
    assert object_cache.PART_BYTES * store_requests.MAX_CONCURRENT * 8 / store_requests.ATTEMPT_TIMEOUT_S < 4e6


def test_nobody_who_looks_on_waits_long(web, monkeypatch):
    """Where a store lists its files but gives none."""
    monkeypatch.setattr(retry, "SHORT_S", 0.3)
    web.trouble = lambda name, number: "503"
    began = time.monotonic()
    with pytest.raises(UserError, match="503"):
        open_source(f"{web.url}/insects")
    thing = stat(f"{web.url}/insects/notes.txt")
    with short_deadline(), pytest.raises(StorageError, match="503"):
        open_cached(thing)
    assert time.monotonic() - began < 5


def test_what_will_not_pass_is_not_waited_for(web):
    files = open_source(f"{web.url}/insects").train
    shutil.rmtree(object_cache._cache_root())
    web.gets.clear()
    web.trouble = lambda name, number: "403"
    with pytest.raises(StorageError, match=r"403.*no permission"):
        files.open(1)
    web.trouble = lambda name, number: "404"
    with pytest.raises(FileNotFoundError):
        files.open(2)
    web.trouble = lambda name, number: "400"
    with pytest.raises(StorageError, match="400"):
        files.open(3)
    assert sorted(web.gets.values()) == [1, 1, 1]


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


def test_a_store_that_is_not_there_is_one_line(monkeypatch, hasty):
    monkeypatch.setattr(retry, "SHORT_S", 0.1)
    with pytest.raises(UserError, match=r"--data http://127.0.0.1:9/x: .*127.0.0.1") as error:
        open_source("http://127.0.0.1:9/x")
    assert "\n" not in str(error.value)


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


# The cache


def held(cache: Path) -> int:
    """Bytes on the disk, of torn files too; nothing comes or is renamed while they are counted."""
    if not (cache / "used").exists():
        return 0
    with open(cache / "used") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        return sum(path.stat().st_size for path in cache.glob("*/*"))


def shard_bytes(source: Source) -> int:
    return max(shard.obj.size for shard in source.train.shards)


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
    # at the edge of two windows, batches that are read ahead want shards of both, which the cache has no room for
    assert sum(shards) <= 4 * len(source.train.counts()) + 2 * WINDOW, "hardly a shard is fetched twice in a window"


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
    while not [part for part in cache.rglob("*.part") if part.stat().st_size]:
        assert child.poll() is None
        time.sleep(0.01)
    child.kill()
    child.wait()
    monkeypatch.setenv(object_cache.LIMIT_VARIABLE, "1.5e-6")
    assert len(open_cached(thing).read()) == 1000, "the torn file is gone for it"
    assert held(cache) == 1000


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
