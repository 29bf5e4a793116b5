"""Packing: what is in the shards, and who can read them."""

import json
import os
import shutil
import tarfile
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from support.packing import pack

from ssl_core.data.dataset import Arrays, Source, open_source
from ssl_core.data.decoding.crops import crop_resize
from ssl_core.data.decoding.decode import read_image
from ssl_core.data.loaders.cpu import CpuLoader
from ssl_core.data.packing.index import find_duplicates
from ssl_core.data.packing.shard import Packing, finish_shard, write_shard
from ssl_core.errors import UserError

CPU = torch.device("cpu")


def original(source: Source, split, i: int):
    """The image of the source that image `i` of a packed split was made from, and its label there."""
    number = int(split.offsets[i, 3])
    files = getattr(source, split.part)
    return read_image(lambda: files.open(number)), int(files.labels[number])


def test_counts_add_up_and_pixels_stay(mixed, tmp_path):
    source = open_source(str(mixed))
    index = pack(source, tmp_path, per_shard=7, side=64)
    packed = open_source(str(tmp_path))
    assert index.images == len(packed.train) + len(packed.test) == 30
    assert index.skipped == 3 and index.images + 3 == len(source.train) + len(source.test)
    lines = (tmp_path / "skipped.txt").read_text().splitlines()
    assert sorted(os.path.basename(line.split("\t")[1]) for line in lines) == ["cut.jpg", "empty.png", "text ü.jpg"]
    assert packed.classes == source.classes and packed.mean == source.mean and packed.size == 64
    for split in (packed.train, packed.test):
        assert sorted(split.offsets[:, 3]) == sorted(set(split.offsets[:, 3]))
        for i in range(len(split)):
            image, label = original(source, split, i)
            assert label == split.labels[i]
            small = read_image(partial(split.open, i))
            assert min(small.size) == min(64, min(image.size))
            assert abs(small.width / small.height - image.width / image.height) < 0.03
            want = np.asarray(image.resize(small.size, Image.LANCZOS), int)
            assert np.abs(np.asarray(small, int) - want).mean() < 6


def test_raw_is_lossless(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    source = Source(
        "noise",
        "x",
        32,
        Arrays(images, np.arange(20) % 3),
        Arrays(images[:5], np.arange(5) % 3),
        ("a", "b", "c"),
        (1.0,) * 3,
        (2.0,) * 3,
    )
    pack(source, tmp_path, lossless=True)
    packed = open_source(str(tmp_path))
    assert (packed.size, packed.mean, packed.std, packed.classes) == (32, (1.0,) * 3, (2.0,) * 3, ("a", "b", "c"))
    for found, given in ((packed.train, source.train), (packed.test, source.test)):
        assert len(found) == len(given)
        for batch in CpuLoader(found, 32, CPU, 0).evaluation(np.arange(len(found))):
            numbers = found.offsets[batch.ids.numpy(), 3]
            assert np.array_equal(batch.images.numpy(), given.images[numbers])
            assert np.array_equal(batch.labels.numpy(), given.labels[numbers])


def test_shards_are_plain_webdataset_tars(mixed, tmp_path):
    pack(open_source(str(mixed)), tmp_path, per_shard=7)
    packed, found = open_source(str(tmp_path)), {}
    for shard in sorted(tmp_path.glob("*.tar")):
        with tarfile.open(shard) as tar:
            names = tar.getnames()
            for image, label in zip(names[::2], names[1::2], strict=True):
                assert image.split(".") == [label.split(".")[0], "jpg"] and label.endswith(".cls")
                read = [tar.extractfile(name).read() for name in (image, label)]
                found[f"{shard.name}: {image.split('.')[0]}"] = read[0], int(read[1])
    for split in (packed.train, packed.test):
        for i in range(len(split)):
            assert found.pop(split.name(i)) == (split.open(i).read(), split.labels[i])
    assert not found


def read_by_webdataset(shards: list[str], count: int) -> list[tuple[bytes, int]]:
    webdataset = pytest.importorskip("webdataset")
    return [(sample["jpg"], int(sample["cls"])) for sample in webdataset.WebDataset(shards, shardshuffle=False)]


def read_by_dali(shards: list[str], count: int) -> list[tuple[bytes, int]]:
    fn = pytest.importorskip("nvidia.dali.fn")
    from nvidia.dali import pipeline_def

    @pipeline_def(batch_size=count, num_threads=1, device_id=None)
    def read():
        return tuple(fn.readers.webdataset(paths=shards, ext=["jpg", "cls"]))

    images, labels = read().run()
    return [(bytes(images.at(i)), int(bytes(labels.at(i)))) for i in range(count)]


@pytest.mark.parametrize("reader", [read_by_webdataset, read_by_dali])
def test_other_programs_read_them(mixed, tmp_path, reader):
    pack(open_source(str(mixed)), tmp_path, per_shard=7)
    packed = open_source(str(tmp_path))
    want = [
        (split.open(i).read(), int(split.labels[i])) for split in (packed.train, packed.test) for i in range(len(split))
    ]
    assert reader([str(path) for path in sorted(tmp_path.glob("*.tar"))], len(want)) == want


def test_the_same_source_gives_the_same_bytes_and_a_copy_keeps_its_digest(mixed, tmp_path):
    for name in ("one", "two"):
        pack(open_source(str(mixed)), tmp_path / name, per_shard=7)
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two and len([name for name in one if name.endswith(".tar")]) > 3
    shutil.copytree(tmp_path / "one", tmp_path / "elsewhere" / "three")
    digests = {open_source(str(tmp_path / name)).digest for name in ("one", "two", "elsewhere/three")}
    assert len(digests) == 1
    pack(open_source(str(mixed)), tmp_path / "other", per_shard=7, quality=80)
    assert open_source(str(tmp_path / "other")).digest not in digests


def test_a_packed_dataset_can_be_packed_again(mixed, tmp_path):
    pack(open_source(str(mixed)), tmp_path / "large", side=80)
    large = open_source(str(tmp_path / "large"))
    pack(large, tmp_path / "small", side=40)
    small = open_source(str(tmp_path / "small"))
    assert (len(small.train), len(small.test)) == (len(large.train), len(large.test))
    numbers = small.train.offsets[:, 3]
    assert np.array_equal(small.train.labels, large.train.labels[numbers])
    assert min(read_image(lambda: small.train.open(0)).size) == 40


def test_unlabeled_images_have_no_cls(photos, tmp_path):
    index = pack(open_source(str(photos)), tmp_path, side=96)
    packed = open_source(str(tmp_path))
    assert (packed.train.labels == -1).all() and len(packed.test) == 0 and packed.classes == ()
    assert index.images == 20 and index.skipped == 3
    with tarfile.open(tmp_path / "shard-000000.tar") as tar:
        assert {name.split(".")[1] for name in tar.getnames()} == {"jpg"}


def test_of_duplicates_the_test_image_stays(shapes, tmp_path):
    root = tmp_path / "source"
    for name in ("train/rows", "train/rings", "test/rows"):
        shutil.copytree(shapes / name.split("/")[1], root / name)
    shutil.copy(root / "train/rings/000.png", root / "train/rings/again.png")
    for path in (root / "test/rows").iterdir():
        if path.stem > "004":
            path.unlink()
    source = open_source(str(root))
    assert len(find_duplicates(source)) == 6
    index = pack(source, tmp_path / "packed", drop_duplicates=True)
    packed = open_source(str(tmp_path / "packed"))
    assert index.duplicates == 6 and len(packed.train) == 115 and len(packed.test) == 5
    lines = (tmp_path / "packed" / "skipped.txt").read_text().splitlines()
    assert len(lines) == 6 and "has the bytes of test-00000000" in "".join(lines)


@pytest.mark.slow
def test_shards_mix_the_classes_and_have_the_size_asked_for(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (1200, 32, 32, 3), np.uint8)
    source = Source("noise", "x", 32, Arrays(images, np.arange(1200) // 600), Arrays(images[:0], np.zeros(0, np.int64)))
    pack(source, tmp_path, lossless=True, shard_mb=1)
    sizes = [path.stat().st_size for path in tmp_path.glob("*.tar")]
    assert len(sizes) > 3 and all(0.7e6 < size < 1.3e6 for size in sizes)
    labels = open_source(str(tmp_path)).train.labels[: 1200 // len(sizes)]
    assert 0.3 < labels.mean() < 0.7


def test_a_finished_shard_is_not_written_again_but_a_damaged_one_is(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)
    split, shard, record = Arrays(images, np.arange(6)), tmp_path / "s.tar", tmp_path / "s.json"
    first = finish_shard(shard, record, split, "train", range(6), Packing())
    assert not first["kept"]
    written = shard.stat().st_mtime_ns
    again = finish_shard(shard, record, split, "train", range(6), Packing())
    assert again["kept"] and shard.stat().st_mtime_ns == written
    whole = shard.read_bytes()
    shard.write_bytes(whole[:600] + b"?" + whole[601:])
    assert not finish_shard(shard, record, split, "train", range(6), Packing())["kept"]
    assert shard.read_bytes() == whole


def test_nothing_decodes(tmp_path):
    source = Source(
        "none",
        "x",
        32,
        Arrays(np.zeros((0, 8, 8, 3), np.uint8), np.zeros(0, np.int64)),
        Arrays(np.zeros((2, 8, 8, 3), np.uint8), np.zeros(2, np.int64)),
    )
    with pytest.raises(UserError, match="nothing is packed"):
        pack(source, tmp_path)


def crop(image: Image.Image, box: tuple[float, float, float], size: int) -> torch.Tensor:
    pixels = torch.from_numpy(np.array(image).flatten())
    return crop_resize(pixels, np.array([[0, image.height, image.width]]), np.array([box]), size)[0].int()


def test_a_crop_is_that_of_the_original(mixed, tmp_path):
    source = open_source(str(mixed))
    pack(source, tmp_path, side=96, quality=95)
    split = open_source(str(tmp_path)).train
    for i in range(len(split)):
        image, _ = original(source, split, i)
        box = (0.5, 0.3, 0.6)
        near, want = (crop(one, box, 32) for one in (read_image(partial(split.open, i)), image))
        assert (near - want).abs().float().mean() < 8
    assert json.loads((tmp_path / "index.json").read_text())["options"]["side"] == 96


def test_one_shard_by_itself(tmp_path):
    images = np.zeros((3, 16, 16, 3), np.uint8)
    record = write_shard(tmp_path / "a.tar", Arrays(images, np.array([4, -1, 2])), "train", [2, 1], Packing())
    assert (record["images"], record["bytes"]) == (2, (tmp_path / "a.tar").stat().st_size)
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert tar.getnames() == ["train-00000002.jpg", "train-00000002.cls", "train-00000001.jpg"]
        assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in tar} == {(0, 0, 0, "", 0o644)}
