"""Tar files in webdataset's layout that others made: bytes, order, odd members, other folders."""

import io
import json
import os
import tarfile

import numpy as np
import pytest
import torch
from support.packing import pack
from support.tar_files import labeled, picture, write

from ssl_core.data import tar_shards
from ssl_core.data.dataset import open_source
from ssl_core.data.loaders.cpu import CpuLoader
from ssl_core.data.sampler import ShuffledSampler, make_sampler
from ssl_core.errors import UserError

pytestmark = pytest.mark.usefixtures("cache")


def test_labels_and_bytes_are_those_of_the_tars(shards):
    source = open_source(str(shards))
    assert source.classes == ("0", "1") and source.size == 96 and (len(source.train), len(source.test)) == (24, 6)
    found = {}
    for split in (source.train, source.test):
        for i in range(len(split)):
            shard, key = split.name(i).split(": ")
            assert shard == f"set-{int(key) // 10}.tar" and split.labels[i] == int(key) % 2
            found[int(key)] = split.open(i).read()
            assert split.size(i) == len(found[int(key)])
    assert found == {i: picture(i) for i in range(30)}
    assert source.notes == ("6 of 30 images are held out as test data, chosen by their keys",)
    assert np.bincount(source.test.labels).tolist() == [3, 3]


def test_trains_each_image_once_in_the_plain_order(shards):
    source = open_source(str(shards), 16)
    order = make_sampler(source.train, 0)
    assert order == ShuffledSampler(24, 0), "local tars can be read anywhere"
    batches = list(CpuLoader(source.train, 16, torch.device("cpu"), 2).training(order, 8, range(6), 0, 1))
    met = [(epoch, id) for batch in batches for epoch, id in zip(batch.epochs.tolist(), batch.ids.tolist())]
    assert sorted(met) == [(epoch, id) for epoch in range(2) for id in range(24)]


def test_packs(shards, tmp_path):
    pack(open_source(str(shards)), tmp_path / "packed", side=8)
    source, packed = open_source(str(shards)), open_source(str(tmp_path / "packed"))
    assert (len(packed.train), len(packed.test), packed.classes) == (24, 6, ("0", "1"))
    assert packed.train.labels.tolist() == source.train.labels[packed.train.offsets[:, 3]].tolist()


def test_the_headers_are_read_once(shards, monkeypatch, cache):
    first = open_source(str(shards))
    assert list(cache.glob("tars-*/offsets.npy"))
    with monkeypatch.context() as patch:
        patch.setattr(tar_shards.tarfile, "open", lambda *_: pytest.fail("scanned again"))
        open_source.cache_clear()
        again = open_source(str(shards))
    assert again.digest == first.digest and np.array_equal(again.train.offsets, first.train.offsets)
    assert [again.test.name(i) for i in range(6)] == [first.test.name(i) for i in range(6)]
    write(shards / "set-2.tar", labeled(100, 10))
    os.utime(shards / "set-2.tar", (1, 1))
    open_source.cache_clear()
    assert any("0100" in open_source(str(shards)).train.name(i) for i in range(24))


def test_the_digest_names_tars_and_sizes(shards, tmp_path):
    first = open_source(str(shards)).digest
    shards.rename(tmp_path / "elsewhere")
    assert open_source(str(tmp_path / "elsewhere")).digest == first
    (tmp_path / "elsewhere" / "set-2.tar").unlink()
    open_source.cache_clear()
    assert open_source(str(tmp_path / "elsewhere")).digest != first


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_of_any_length_and_script(tmp_path, format):
    keys = ["кошка/猫", "a" * 90 if format == tarfile.USTAR_FORMAT else "a" * 300, "dir.v2/b"]
    write(tmp_path / "data" / "a.tar", [(f"{key}.png", picture(i)) for i, key in enumerate(keys)], format=format)
    source = open_source(str(tmp_path / "data"))
    assert [source.train.name(i) for i in range(3)] == [f"a.tar: {key}" for key in keys]
    assert [source.train.open(i).read() for i in range(3)] == [picture(i) for i in range(3)]


def test_one_image_a_key_and_hidden_files_are_none(tmp_path):
    members = [("a.jpg", picture(0, "jpeg")), ("a.seg.png", picture(1)), ("b/._c.png", b"?"), ("b/c.png", picture(2))]
    write(tmp_path / "data" / "a.tar", members)
    source = open_source(str(tmp_path / "data"))
    assert [source.train.open(i).read() for i in range(2)] == [picture(0, "jpeg"), picture(2)]
    assert len(source.train) == 2


@pytest.mark.parametrize(
    ("names", "used", "out"),
    [
        (["cat.0.png", "cat.1.png", "dog.0.png"], ["cat.0", "cat.1", "dog"], ()),
        (["1.left.png", "1.right.png"], ["1.left", "1.right"], ()),
        (["1.mask.png", "1.png"], ["1"], ("left out, as other images have their keys: a.tar: 1.mask.png",)),
        (["1.png", "1.jpg"], ["1"], ("left out, as other images have their keys: a.tar: 1.jpg",)),
    ],
)
def test_several_images_of_a_key(tmp_path, names, used, out):
    write(
        tmp_path / "data" / "a.tar",
        [(name, picture(i, name[-3:].replace("jpg", "jpeg"))) for i, name in enumerate(names)],
    )
    source = open_source(str(tmp_path / "data"))
    assert [source.train.name(i) for i in range(len(source.train))] == [f"a.tar: {key}" for key in used]
    assert source.notes == out


def test_no_link_is_followed(tmp_path):
    (tmp_path / "secret.png").write_bytes(picture(5))
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for kind, name in (
            (tarfile.SYMTYPE, "link.png"),
            (tarfile.LNKTYPE, "hard.png"),
            (tarfile.FIFOTYPE, "pipe.png"),
            (tarfile.CHRTYPE, "device.png"),
            (tarfile.DIRTYPE, "folder.png"),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, str(tmp_path / "secret.png")
            tar.addfile(member)
        member = tarfile.TarInfo("../../up.png")
        member.size = len(picture(1))
        tar.addfile(member, io.BytesIO(picture(1)))
    (tmp_path / "data").mkdir()
    (tmp_path / "a.tar").rename(tmp_path / "data" / "a.tar")
    source = open_source(str(tmp_path / "data"))
    assert [source.train.name(i) for i in range(len(source.train))] == ["a.tar: ../../up"]


def test_a_sparse_file_is_passed_over(tmp_path):
    """Its bytes do not lie in one piece."""
    (tmp_path / "data").mkdir()
    with tarfile.open(tmp_path / "data" / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name, headers in (("holes.png", {"GNU.sparse.size": "9000", "GNU.sparse.map": "0,10"}), ("a.png", {})):
            member = tarfile.TarInfo(name)
            member.size, member.pax_headers = len(picture(1)), headers
            tar.addfile(member, io.BytesIO(picture(1)))
    source = open_source(str(tmp_path / "data"))
    assert [source.train.name(i) for i in range(len(source.train))] == ["a.tar: a"]


def test_other_folders_stay_what_they_are(shards, tmp_path):
    pack(open_source(str(shards)), tmp_path / "packed")
    assert open_source(str(tmp_path / "packed")).train.name(0).startswith("shard-000000.tar: train-")
    mixed = tmp_path / "mixed"
    (mixed / "sub").mkdir(parents=True)
    for number in range(4):
        (mixed / "sub" / f"{number}.png").write_bytes(picture(number))
    write(mixed / "backup.tar", labeled(0, 3))
    source = open_source(str(mixed))
    assert source.train.paths == [mixed / "sub" / f"{number}.png" for number in range(4)]
    assert source.notes == ("left out: backup.tar beside the images",)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no images in this folder"):
        open_source(str(tmp_path / "empty"))


def test_only_broken_images_are_refused(tmp_path):
    write(tmp_path / "data" / "a.tar", [("1.png", b"?"), ("2.png", json.dumps([]).encode())])
    with pytest.raises(UserError, match="none of its 2 images to train on can be decoded"):
        open_source(str(tmp_path / "data"))
