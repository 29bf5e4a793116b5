"""Images without labels beside labeled ones: pretraining meets all of them, probes and supervised training do not."""

import hashlib
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.image_folders import names_of, put
from support.packing import pack

from ssl_core.data.dataset import Arrays, Source, open_source
from ssl_core.data.duplicates import find_copies
from ssl_core.data.loaders.select import training_batches
from ssl_core.data.packing.index import find_duplicates
from ssl_core.data.sampler import make_sampler
from ssl_core.data.summary import summary
from ssl_core.evaluation.frozen_encoder import Splits, make_splits

KINDS = [f"{kind}/{i}.png" for kind in ("cat", "dog") for i in range(5)]


@pytest.fixture
def folder(tmp_path):
    """As STL-10 is laid out: ten labeled training images, ten test images, seven without labels."""
    put(tmp_path, *(f"{part}/{name}" for part in ("train", "test") for name in KINDS))
    put(tmp_path, *(f"unlabeled/{i}.png" for i in range(7)))
    return tmp_path


def test_all_are_trained_on_and_the_line_says_so(folder):
    source = open_source(str(folder), 16)
    line = "10 labeled and 7 unlabeled training images, 10 test images of 16 px, 2 classes (cat 10, dog 10)"
    assert line in summary(source) and "trained on without labels: unlabeled/ (7 images)" in summary(source)
    assert names_of(source.train, folder) == [f"train/{name}" for name in KINDS] + [
        f"unlabeled/{i}.png" for i in range(7)
    ]
    where = dict(rank=0, world=1, device=torch.device("cpu"), threads=1)
    _, batches = training_batches(source, batch=17, steps=range(1), seed=0, **where)
    (batch,) = batches
    assert sorted(batch.ids.tolist()) == list(range(17)) and (batch.labels == -1).sum() == 7


def test_probes_and_supervised_training_meet_labeled_images_only(folder):
    source = open_source(str(folder))
    parts = make_splits(source, Splits(), 0)[1]
    learned = np.concatenate([parts[name][1] for name in ("train", "val")])
    assert sorted(learned) == list(range(10)) and len(parts["test"][1]) == 10
    labeled = source.labeled()
    assert labeled.train.labels.tolist() == [0] * 5 + [1] * 5 and len(labeled.test) == 10
    assert labeled.labeled() is labeled and labeled.train.name(9) == source.train.name(9)


def test_held_out_images_and_ids_are_those_without_the_folder(tmp_path):
    put(tmp_path, *KINDS)
    before = open_source(str(tmp_path))
    put(tmp_path, "unlabelled/deep/1.png", "unlabelled/2.png")
    open_source.cache_clear()
    after, count = open_source(str(tmp_path)), len(before.train)
    assert names_of(after.test, tmp_path) == names_of(before.test, tmp_path)
    assert names_of(after.train, tmp_path)[:count] == names_of(before.train, tmp_path) and len(after.train) == count + 2


def test_the_digest_is_that_of_paths_and_sizes_unless_there_are_unlabeled_images(folder):
    def listing() -> bytes:
        files = sorted(path for path in folder.rglob("*.png"))
        return "".join(f"{path.relative_to(folder)}\0{path.stat().st_size}\n" for path in files).encode()

    assert open_source(str(folder)).digest != hashlib.sha256(listing()).hexdigest()
    shutil.rmtree(folder / "unlabeled")
    open_source.cache_clear()
    assert open_source(str(folder)).digest == hashlib.sha256(listing()).hexdigest()


def test_packing_keeps_them_unlabeled(folder, tmp_path_factory):
    place = tmp_path_factory.mktemp("packed")
    pack(open_source(str(folder)), place, per_shard=5)
    packed = open_source(str(place))
    assert (len(packed.train), int(packed.train.labeled.sum()), len(packed.test)) == (17, 10, 10)
    assert "10 labeled and 7 unlabeled" in summary(packed)
    assert sorted(packed.labeled().train.name(i) for i in range(10)) == sorted(
        packed.train.name(int(i)) for i in np.flatnonzero(packed.train.labeled)
    )


def test_labeled_images_of_shards_that_are_fetched_still_come_a_few_shards_at_a_time(folder, tmp_path_factory):
    place = tmp_path_factory.mktemp("packed")
    pack(open_source(str(folder)), place, per_shard=2)
    packed = open_source(str(place))
    labeled = replace(packed, train=replace(packed.train, windowed=True)).labeled().train
    order = make_sampler(labeled, 0)
    assert sorted(order.at(np.arange(10))[0]) == list(range(10))
    assert sum(shard.images for shard in labeled.fetched_shards()) == 10


def test_of_copies_the_labeled_image_stays_and_no_label_is_no_other_label():
    images = np.zeros((3, 8, 8, 3), np.uint8)
    source = Source("x", "", 8, Arrays(images, np.array([-1, 1, -1])), Arrays(images[:1], np.array([1])), ("a", "b"))
    assert {(part, i) for part, i, _ in find_duplicates(source)} == {("train", 0), ("train", 1), ("train", 2)}
    assert find_copies(source).relabeled == 0
    without = Source("x", "", 8, source.train, Arrays(images[:0], np.zeros(0, np.int64)), ("a", "b"))
    assert {(part, i) for part, i, _ in find_duplicates(without)} == {("train", 0), ("train", 2)}
