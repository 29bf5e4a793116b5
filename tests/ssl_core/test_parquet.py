"""Parquet shards: what is read from them, in which order, once, and what becomes of damaged and hostile ones."""

import os
import random
import shutil

import fsspec
import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from support.image_folders import put
from support.packing import pack
from support.parquet_files import classes, labeled, write
from support.tar_files import picture

from jobs.config.recipe import resolve_data_path
from ssl_core.data.dataset import open_source
from ssl_core.data.duplicates import find_copies
from ssl_core.data.loaders.cpu import CpuLoader
from ssl_core.data.parquet_shards import open_shard
from ssl_core.data.sampler import make_sampler
from ssl_core.data.summary import summary
from ssl_core.errors import StorageError, UserError
from ssl_core.storage.object_store import check_url, stat
from ssl_core.storage.retry import RetryDeadline

pytestmark = pytest.mark.usefixtures("cache")
CPU = torch.device("cpu")
CAT_DOG = {"label": classes("cat", "dog")}


@pytest.fixture
def hub(tmp_path):
    """As the Hub has a dataset: 23 training images in three shards, 8 test images, in row groups of three."""
    for number, (start, count) in enumerate(((0, 10), (10, 1), (11, 12))):
        labeled(tmp_path / "hub" / "data" / f"train-{number:05d}-of-00003.parquet", start, count)
    labeled(tmp_path / "hub" / "data" / "test-00000-of-00001.parquet", 100, 8)
    (tmp_path / "hub" / "README.md").write_text("about it")
    return tmp_path / "hub"


def read_all(split) -> list[bytes]:
    return [split.open(i).read() for i in range(len(split))]


def test_images_labels_and_splits_are_those_of_the_shards(hub):
    source = open_source(str(hub), 16)
    assert source.classes == ("cat", "dog") and (len(source.train), len(source.test)) == (23, 8)
    assert read_all(source.train) == [picture(i) for i in range(23)] and source.train.size(3) == len(picture(3))
    assert read_all(source.test) == [picture(i) for i in range(100, 108)]
    assert source.train.labels.tolist() == [i % 2 for i in range(23)]
    assert source.train.name(10) == "train-00001-of-00003.parquet: row 0"
    line = summary(source)
    assert "trained on 3 train shards, tested on 1 test shards, by their names" in line
    assert "labels from column label" in line and "1 other file (.md) left out" in line
    assert find_copies(source).remote, "a look at all bytes would write all of them out"


def test_columns_of_the_same_classes_are_other_datasets(tmp_path):
    images, both = [picture(i) for i in range(10)], {"seen": classes("cat", "dog"), "said": classes("cat", "dog")}
    write(tmp_path / "pets" / "train.parquet", images, both, seen=[0, 1] * 5, said=[1, 0] * 5)
    seen, said = (open_source(f"{tmp_path}/pets#{column}") for column in ("seen", "said"))
    assert (seen.name, said.name) == ("pets#seen", "pets#said") and seen.classes == said.classes
    assert seen.digest != said.digest


@pytest.mark.parametrize("world", [1, 3])
def test_trains_each_image_once_in_the_same_order_for_any_workers(hub, world):
    split = open_source(str(hub), 16).train
    order = make_sampler(split, 1)
    assert [shard.images for shard in split.fetched_shards()] == [10, 1, 12]
    streams = [CpuLoader(split, 16, CPU, 1).training(order, 6, range(12), rank, world) for rank in range(world)]
    met = [int(i) for parts in zip(*streams) for part in parts for i in part.ids]
    assert met == order.at(np.arange(72))[0].tolist()
    assert all(sorted(met[e * 23 : (e + 1) * 23]) == list(range(23)) for e in range(3))


def test_each_shard_is_written_out_once_and_again_if_it_was_evicted(hub, cache, monkeypatch):
    written = []
    shard = open_source(str(hub), 16).train.shards[0]
    made = type(shard)._write_images

    def counted(self, *rest):
        written.append(self.name)
        made(self, *rest)

    monkeypatch.setattr(type(shard), "_write_images", counted)
    train = open_source(str(hub), 17).train
    for _ in range(2):
        read_all(train)
    assert sorted(written) == ["train-00001-of-00003.parquet", "train-00002-of-00003.parquet"]
    shutil.rmtree(cache / "remote")
    assert read_all(train) == [picture(i) for i in range(23)] and len(written) == 5


@pytest.mark.parametrize("where", ["memory", "file"])
def test_in_a_store_they_are_the_same(hub, where):
    if where == "memory":
        fsspec.filesystem("memory").put(f"{hub}/", "/there/hub/", recursive=True)
    source, local = open_source("memory://there/hub" if where == "memory" else f"file://{hub}"), open_source(str(hub))
    assert source.digest == local.digest and source.notes == local.notes and source.classes == local.classes
    assert read_all(source.train) == read_all(local.train) and source.test.name(0) == local.test.name(0)


def test_a_file_in_a_store_is_read_in_parts(tmp_path):
    data = random.Random(0).randbytes(5 * 2**20)
    fsspec.filesystem("memory").pipe("/parts/file", data)
    with open_shard(stat("memory://parts/file"), RetryDeadline()) as file:
        for start, length in ((0, 10), (2**21 - 5, 10), (4 * 2**20, 2**21), (len(data) - 8, 100)):
            file.seek(start)
            assert file.read(length) == data[start : start + length]
        assert file.seek(0, os.SEEK_END) == len(data) and file.read() == b""


def test_the_hub_has_a_file_system():
    pytest.importorskip("huggingface_hub")
    assert check_url("hf://datasets/owner/name/") == "hf://datasets/owner/name"


def test_one_file_or_a_pattern_of_several(hub, monkeypatch):
    one = open_source(f"{hub}/data/train-00000-of-00003.parquet")
    assert (len(one.train), len(one.test)) == (8, 2) and "2 of 10 images are held out" in summary(one)
    pattern = f"{hub}/data/train-*.parquet"
    assert len(open_source(pattern).train) == 17
    monkeypatch.chdir(hub.parent)
    assert resolve_data_path("hub/data/train-*.parquet#label") == f"{pattern}#label"
    with pytest.raises(UserError, match="no file fits this pattern"):
        open_source(f"{hub}/data/val-*.parquet")


def test_labels_of_several_columns(tmp_path):
    images = [picture(i) for i in range(12)]
    features = {"fine": classes("a", "b", "c"), "coarse": classes("x", "y")}
    columns = dict(fine=[i % 3 for i in range(12)], coarse=[i % 2 for i in range(12)])
    write(tmp_path / "d" / "train.parquet", images, features, **columns)
    with pytest.raises(UserError, match=r"may be in any of fine, coarse: name the column.*DATA#fine"):
        open_source(str(tmp_path / "d"))
    digests = {open_source(f"{tmp_path}/d#{column}").digest for column in ("fine", "coarse", "")}
    assert open_source(f"{tmp_path}/d#fine").classes == ("a", "b", "c") and len(digests) == 3
    assert open_source(f"{tmp_path}/d#").classes == ()
    with pytest.raises(UserError, match="no column 'fin': did you mean fine"):
        open_source(f"{tmp_path}/d#fin")


@pytest.mark.parametrize(
    ("labels", "features", "names", "unlabeled"),
    [
        (["cat", "dog"] * 6, {}, ("cat", "dog"), 0),
        ([3, 12] * 6, {}, ("3", "12"), 0),
        ([0, 1, -1] * 4, CAT_DOG, ("cat", "dog"), 4),
        ([0, 1, None] * 4, CAT_DOG, ("cat", "dog"), 4),
    ],
)
def test_labels_of_any_kind(tmp_path, labels, features, names, unlabeled):
    write(tmp_path / "d" / "0000.parquet", [picture(i) for i in range(12)], features, label=labels)
    source = open_source(str(tmp_path / "d"))
    assert source.classes == names and int((~source.train.labeled).sum()) == unlabeled


def test_several_labels_and_other_columns(tmp_path):
    images = [picture(i) for i in range(12)]
    write(tmp_path / "many" / "train.parquet", images, labels=[["a"], ["a", "b"], ["b"]] * 4)
    source = open_source(str(tmp_path / "many"))
    assert source.multilabel and source.classes == ("a", "b") and source.train.labels.any(1).all()
    write(tmp_path / "text" / "train.parquet", images, text=[f"a picture {i}" for i in range(12)])
    source = open_source(str(tmp_path / "text"))
    assert source.classes == () and "no column is known for labels, DATA#COLUMN names one of text" in summary(source)


def test_unlabeled_shards_are_trained_on_and_packed(hub, tmp_path):
    write(hub / "data" / "unlabeled-00000-of-00001.parquet", [picture(i) for i in range(200, 205)], label=[-1] * 5)
    source = open_source(str(hub))
    assert "23 labeled and 5 unlabeled training images, 8 test images" in summary(source)
    assert sum(shard.images for shard in source.labeled().train.fetched_shards()) == 23
    pack(source, tmp_path / "packed", per_shard=9)
    packed = open_source(str(tmp_path / "packed"))
    assert (len(packed.train), int(packed.train.labeled.sum()), len(packed.test)) == (28, 23, 8)


def test_several_datasets_in_one_folder_are_refused(hub):
    shutil.copytree(hub / "data", hub / "small")
    with pytest.raises(UserError, match="several folders have splits of their own: data/, small/; give one of them"):
        open_source(str(hub))


def test_plain_bytes_are_images_and_tables_are_none(hub, tmp_path):
    table = pa.table({"image": [picture(i) for i in range(10)], "label": [i % 2 for i in range(10)]})
    (tmp_path / "plain").mkdir()
    parquet.write_table(table, tmp_path / "plain" / "a.parquet")
    assert len(open_source(str(tmp_path / "plain")).train) == 8
    put(tmp_path / "table", *(f"{i}.png" for i in range(10)))
    rows = pa.table({"file_name": [f"{i}.png" for i in range(10)], "label": [i % 2 for i in range(10)]})
    parquet.write_table(rows, tmp_path / "table" / "labels.parquet")
    assert open_source(f"{tmp_path}/table/labels.parquet").classes == ("0", "1")
    left_out = open_source(f"{tmp_path}/table")
    assert left_out.classes == () and "left out: labels.parquet beside the images" in left_out.notes


def test_rows_without_an_image_are_skipped_and_named(tmp_path):
    images = [picture(0), None, b"", b"no image", *(picture(i) for i in range(4, 10))]
    write(tmp_path / "d" / "a.parquet", images, groups=4)
    split, said = open_source(str(tmp_path / "d"), 16).train, []
    loader = CpuLoader(split, 16, CPU, 1, said.append)
    met = [int(i) for batch in loader.training(make_sampler(split, 0), 5, range(4), 0, 1) for i in batch.ids]
    assert sorted(met) == sorted([0, *range(4, 10)] * 2)
    assert loader.skipped == {f"a.parquet: row {i}" for i in (1, 2, 3)} and len(said) == 3


def test_equal_images_are_kept_once(tmp_path, cache):
    one = bytes(random.Random(0).randbytes(10_000))
    write(tmp_path / "d" / "a.parquet", [picture(0), *[one] * 500])
    split = open_source(str(tmp_path / "d")).train
    assert split.open(500).read() == one
    assert sum(path.stat().st_size for path in (cache / "remote").glob("*/*")) < 100_000


def test_damage_costs_the_rows_behind_it_in_its_row_group(tmp_path):
    path = tmp_path / "d" / "a.parquet"
    images = [random.Random(i).randbytes(3000) for i in range(30)]
    write(path, [picture(0), *images[1:]], groups=10)
    chunk = parquet.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data[start : start + 40] = bytes(40)
    path.write_bytes(data)
    split, read = open_source(str(tmp_path / "d")).train, []
    for i in range(30):
        try:
            read.append((i, split.open(i).read()))
        except ValueError:
            continue
    assert read == [(i, picture(0) if i == 0 else images[i]) for i in range(30) if not 10 <= i < 20]


@pytest.mark.slow
def test_random_damage_is_one_line_or_costs_images(tmp_path):
    labeled(tmp_path / "whole.parquet", 0, 12)
    whole, random_ = (tmp_path / "whole.parquet").read_bytes(), random.Random(0)
    for number in range(60):
        data = bytearray(whole)
        for _ in range(random_.choice((1, 5, 40))):
            data[random_.randrange(len(data))] = random_.randrange(256)
        place = tmp_path / f"{number}"
        place.mkdir()
        (place / "a.parquet").write_bytes(data[: random_.choice((len(data), len(data), random_.randrange(len(data))))])
        try:
            source = open_source(str(place), 16)
            for split in (source.train, source.test):
                list(CpuLoader(split, 16, CPU, 1, lambda said: None).evaluation(np.arange(len(split))))
        except (UserError, StorageError) as error:
            assert "\n" not in str(error)


def test_a_file_that_changes_is_an_error_not_other_images(hub):
    split = open_source(str(hub)).train
    labeled(hub / "data" / "train-00002-of-00003.parquet", 50, 12)
    with pytest.raises(StorageError, match="has changed since it was opened"):
        split.open(22)


def test_a_cache_that_is_too_small_is_refused_at_once(hub, monkeypatch):
    monkeypatch.setenv("TILESPIN_CACHE_GB", "0.000001")
    with pytest.raises(UserError, match="needs TILESPIN_CACHE_GB of"):
        open_source(str(hub))
