"""Tar files in webdataset's layout that others made: labels, parts, odd members, damage."""

import io
import json
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from packing import pack
from PIL import Image
from structured import gradients

from ssl_core.data import tar_shards
from ssl_core.data.order import Order, order_of
from ssl_core.data.source import Shard, open_source
from ssl_core.data.sources import tars
from ssl_core.data.torch_loader import TorchLoader
from ssl_core.errors import BadInput

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    place = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("TILESPIN_CACHE", str(place))
    return place


def picture(number: int, format: str = "png") -> bytes:
    file = io.BytesIO()
    Image.fromarray(gradients(1, 16, number)[0].numpy()).save(file, format)
    return file.getvalue()


def write(path: Path, members: Iterable[tuple[str, bytes]], **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def labelled(start: int, count: int, classes: int = 2):
    for i in range(start, start + count):
        yield f"{i:04d}.png", picture(i)
        yield f"{i:04d}.cls", f"{i % classes}\n".encode()


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three shards of ten images in two classes."""
    for number in range(3):
        write(tmp_path / "data" / f"set-{number}.tar", labelled(number * 10, 10))
    return tmp_path / "data"


def test_labels_and_bytes_are_those_of_the_tars(folder):
    source = open_source(str(folder))
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


def test_trains_each_image_once_in_the_plain_order(folder):
    source = open_source(str(folder), 16)
    order = order_of(source.train, 0)
    assert order == Order(24, 0), "local tars can be read anywhere"
    batches = list(TorchLoader(source.train, 16, CPU, 2).training(order, 8, range(6), 0, 1))
    met = [(epoch, id) for batch in batches for epoch, id in zip(batch.epochs.tolist(), batch.ids.tolist())]
    assert sorted(met) == [(epoch, id) for epoch in range(2) for id in range(24)]


def test_packs(folder, tmp_path):
    pack(open_source(str(folder)), tmp_path / "packed", side=8)
    source, packed = open_source(str(folder)), open_source(str(tmp_path / "packed"))
    assert (len(packed.train), len(packed.test), packed.classes) == (24, 6, ("0", "1"))
    assert packed.train.labels.tolist() == source.train.labels[packed.train.places[:, 3]].tolist()


def test_the_headers_are_read_once(folder, monkeypatch, cache):
    first = open_source(str(folder))
    assert list(cache.glob("tars-*/places.npy"))
    with monkeypatch.context() as patch:
        patch.setattr(tar_shards.tarfile, "open", lambda *_: pytest.fail("scanned again"))
        open_source.cache_clear()
        again = open_source(str(folder))
    assert again.digest == first.digest and np.array_equal(again.train.places, first.train.places)
    assert [again.test.name(i) for i in range(6)] == [first.test.name(i) for i in range(6)]
    write(folder / "set-2.tar", labelled(100, 10))
    os.utime(folder / "set-2.tar", (1, 1))
    open_source.cache_clear()
    assert any("0100" in open_source(str(folder)).train.name(i) for i in range(24))


def test_the_digest_names_tars_and_sizes(folder, tmp_path):
    first = open_source(str(folder)).digest
    folder.rename(tmp_path / "elsewhere")
    assert open_source(str(tmp_path / "elsewhere")).digest == first
    (tmp_path / "elsewhere" / "set-2.tar").unlink()
    open_source.cache_clear()
    assert open_source(str(tmp_path / "elsewhere")).digest != first


@pytest.mark.parametrize(
    ("files", "label"),
    [
        ({"x.cls": b" 7 "}, "7"),
        ({"x.cls": b"007\n"}, "007"),
        ({"x.cls": b"7.0"}, "7"),
        ({"x.cls": b"cat"}, "cat"),
        ({"x.cls": b'"cat"'}, "cat"),
        ({"x.cls": b"golden retriever"}, "golden retriever"),
        ({"x.cls": "кошка".encode()}, "кошка"),
        ({"x.cls": b"true"}, "true"),
        ({"x.cls": b"9" * 30}, "9" * 30),
        ({"x.json": b'{"label": 7}'}, "7"),
        ({"x.json": b'{"label": "7"}'}, "7"),
        ({"x.json": b'{"label": 7.0}'}, "7"),
        ({"x.json": b'{"label": "cat"}'}, "cat"),
        ({"x.json": b'{"label": true}'}, "true"),
        ({"x.json": b'{"class_name": "cat", "width": 5}'}, "cat"),
        ({"x.json": b'{"cls": 7, "text": "a cat"}'}, "7"),
        ({"x.JSON": b'{"label": 7}'}, "7"),
        ({"x.cls": b"-3"}, None),
        ({"x.cls": b""}, None),
        ({"x.json": b'{"label": null}'}, None),
        ({"x.coarse.cls": b"7"}, None),
        ({"x.json": b"7"}, None),
        ({"x.json": b"7" * 400_000}, None),
        ({"x.json": b"[" * 400_000}, None),
        ({"y.cls": b"7"}, None),
        ({"x.txt": b"7"}, None),
    ],
)
def test_where_labels_are_found(tmp_path, files, label):
    write(tmp_path / "data" / "a.tar", [("x.png", picture(0)), *files.items()])
    found = tar_shards.scan(open_shards(tmp_path / "data"))
    assert [found.values[i] if i >= 0 else None for i in found.labels] == [label]
    assert found.names.tolist() == [b"x"] and len(found.places) == 1


def open_shards(root: Path) -> tuple:
    return tuple(Shard(path, "") for path in sorted(root.glob("*.tar")))


def test_sparse_class_numbers_become_a_row(tmp_path):
    members = [(f"{i}{end}", data) for i, cls in enumerate((900, 3, 41) * 5)
               for end, data in ((".jpg", picture(i, "jpeg")), (".cls", str(cls).encode()))]  # fmt: skip
    write(tmp_path / "data" / "a.tar", members)
    source = open_source(str(tmp_path / "data"))
    assert source.classes == ("3", "41", "900")
    assert {int(source.train.name(i).split(": ")[1]) % 3: int(source.train.labels[i]) for i in range(12)} == {
        0: 2, 1: 0, 2: 1,
    }  # fmt: skip


def test_images_of_which_some_have_no_label_have_none(tmp_path):
    write(tmp_path / "data" / "a.tar", [*labelled(0, 6), ("7.png", picture(7))])
    source = open_source(str(tmp_path / "data"))
    assert source.classes == () and (source.train.labels == -1).all() and len(source.test) == 0
    assert source.notes == ("labels are not used, 1 images have none",)


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


def test_no_link_is_followed(tmp_path):
    (tmp_path / "secret.png").write_bytes(picture(5))
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for kind, name in ((tarfile.SYMTYPE, "link.png"), (tarfile.LNKTYPE, "hard.png"), (tarfile.FIFOTYPE, "pipe.png"),
                           (tarfile.CHRTYPE, "device.png"), (tarfile.DIRTYPE, "folder.png")):  # fmt: skip
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


# Labels and splits as people write them


def named(names: Iterable[str], kind: str = "cls", start: int = 0):
    """Images with a label each: text in .cls, or a JSON value in .json."""
    for i, name in enumerate(names, start):
        yield f"{i:04d}.png", picture(i)
        yield f"{i:04d}.{kind}", (f'{{"label": {name}}}' if kind == "json" else name).encode()


@pytest.mark.parametrize(
    ("labels", "kind", "classes"),
    [
        (("cat", "dog"), "cls", ("cat", "dog")),
        (("000", "001"), "cls", ("0", "1")),
        (("10", "9"), "cls", ("9", "10")),
        (("n01440764", "n01443537"), "cls", ("n01440764", "n01443537")),
        (("007", "cat"), "cls", ("007", "cat")),
        (('"cat"', '"dog"'), "json", ("cat", "dog")),
        (('"3"', '"12"'), "json", ("3", "12")),
        (("3.0", "12.0"), "json", ("3", "12")),
        (("true", "false"), "json", ("false", "true")),
    ],
)
def test_labels_may_be_names_or_numbers_as_text(tmp_path, labels, kind, classes):
    write(tmp_path / "data" / "a.tar", named(labels * 5, kind))
    source = open_source(str(tmp_path / "data"))
    assert source.classes == classes and (len(source.train), len(source.test)) == (8, 2)
    for split in (source.train, source.test):
        for i in range(len(split)):
            label = labels[int(split.name(i)[-4:]) % 2].strip('"').removesuffix(".0")
            assert source.classes[split.labels[i]] in (label, label.lstrip("0") or "0")


@pytest.mark.parametrize(
    ("labels", "kind", "note"),
    [
        (("[1, 2]", "[3]"), "json", "10 labels cannot be used, such as '[1, 2]'"),
        (("2.5", "3.5"), "json", "10 labels cannot be used, such as '2.5'"),
        (("cat", "cat"), "cls", "labels are not used, all images have the same: cat"),
        (("-1", "7"), "cls", "labels are not used, 5 images have none"),
    ],
)
def test_labels_that_are_not_used_are_named(tmp_path, labels, kind, note):
    write(tmp_path / "data" / "a.tar", named(labels * 5, kind))
    source = open_source(str(tmp_path / "data"))
    assert source.classes == () and note in source.notes


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train-000.tar", "val-000.tar"),
        ("imagenet-train-000000.tar", "imagenet-validation-000000.tar"),
        ("train/a.tar", "val/a.tar"),
        ("set/Train/000.tar", "set/Test/000.tar"),
        ("shard_train_1.tar", "shard_test_1.tar"),
    ],
)
def test_shards_are_split_by_their_names(tmp_path, train, test):
    write(tmp_path / "data" / train, named(("cat", "dog") * 5))
    write(tmp_path / "data" / test, named(("dog", "cat") * 2, start=100))
    source = open_source(str(tmp_path / "data"))
    assert (len(source.train), len(source.test), source.classes) == (10, 4, ("cat", "dog"))
    assert source.test.labels.tolist() == [1, 0, 1, 0] and int(source.test.name(0)[-4:]) == 100
    role = "val" if "val" in test else "test"
    assert source.notes == (f"trained on 1 train shards, tested on 1 {role} shards, by their names",)


def test_splits_that_cannot_be_understood(tmp_path):
    write(tmp_path / "data" / "test-0.tar", named(("cat", "dog") * 5))
    with pytest.raises(BadInput, match=r"no shards to train on: found test-0\.tar"):
        open_source(str(tmp_path / "data"))
    write(tmp_path / "data" / "train-0.tar", named(("cat", "cow") * 5))
    open_source.cache_clear()
    with pytest.raises(BadInput, match="test shards have classes that the training shards lack: dog"):
        open_source(str(tmp_path / "data"))


def test_unlabelled_shards_are_not_mixed_in(tmp_path):
    for part in ("train", "test", "unlabeled"):
        write(tmp_path / "data" / f"{part}.tar", named(("cat", "dog") * 3))
    source = open_source(str(tmp_path / "data"))
    assert (len(source.train), len(source.test)) == (6, 6) and "not used: 1 unlabelled shards" in source.notes


def test_one_file_or_a_pattern_of_several(folder):
    assert len(open_source(str(folder / "set-1.tar")).train) == 8
    for pattern in ("set-{0..1}.tar", "set-{0,1}.tar", "set-[01].tar"):
        source = open_source(str(folder / pattern))
        assert len(source.train) + len(source.test) == 20, pattern
    assert tars.expand("a-{08..11}-{x,y}.tar")[::2] == ["a-08-x.tar", "a-09-x.tar", "a-10-x.tar", "a-11-x.tar"]
    assert tars.expand("{8..10}") == ["8", "9", "10"]
    for pattern, why in (("set-{0..3}.tar", r"there is no .*set-3\.tar"), ("other-*.tar", "no file fits this pattern")):
        with pytest.raises(BadInput, match=why):
            open_source(str(folder / pattern))


def test_shards_go_before_a_few_images_beside_them(folder):
    (folder / "preview.png").write_bytes(picture(0))
    source = open_source(str(folder))
    assert len(source.train) + len(source.test) == 30 and "left out: preview.png beside the shards" in source.notes


@pytest.mark.parametrize("end", [".tar.gz", ".tgz", ".tar.zst"])
def test_compressed_shards_are_refused_with_what_to_do(tmp_path, end):
    (tmp_path / f"a{end}").write_bytes(b"compressed")
    with pytest.raises(BadInput, match=rf"a{end} is compressed.*decompress it first, into a\.tar"):
        open_source(str(tmp_path))
    with pytest.raises(BadInput, match=rf"a{end} is compressed"):
        open_source(str(tmp_path / f"a{end}"))


# Damage


@pytest.mark.parametrize("keep", [0.3, 0.311, 0.5, 0.55])
def test_what_lies_before_a_cut_is_used(folder, keep):
    path = folder / "set-1.tar"
    os.truncate(path, int(path.stat().st_size * keep))
    source = open_source(str(folder))
    keys = [int(split.name(i).split(": ")[1]) for split in (source.train, source.test) for i in range(len(split))]
    left = sorted(key for key in keys if 10 <= key < 20)
    assert left == list(range(10, 10 + len(left))) and 1 < len(left) < 10
    assert set(keys) >= {*range(10), *range(20, 30)}
    assert any(f"set-1.tar is damaged, {len(left)} images of it are used" in note for note in source.notes)
    for batch in TorchLoader(source.train, 16, CPU, 1).whole(np.arange(len(source.train))):
        assert batch.weights.all()


def test_what_lies_before_a_broken_header_is_used(folder):
    path = folder / "set-1.tar"
    with tarfile.open(path) as tar:
        middle = tar.getmembers()[10].offset
    data = bytearray(path.read_bytes())
    data[middle + 148 : middle + 156] = b"?" * 8  # the checksum
    path.write_bytes(data)
    source = open_source(str(folder))
    assert len(source.train) + len(source.test) == 25
    assert f"5 images of it are used: neither a header nor the end mark at byte {middle:,}" in source.notes[0]


@pytest.mark.parametrize("data", [b"", b"no tar at all" * 100, bytes(10_240)])
def test_tars_without_images(folder, data):
    (folder / "set-1.tar").write_bytes(data)
    source = open_source(str(folder))
    assert len(source.train) + len(source.test) == 20
    assert any("set-1.tar is damaged" in note for note in source.notes) == bool(data != bytes(10_240))
    for path in folder.iterdir():
        path.write_bytes(data)
    open_source.cache_clear()
    with pytest.raises(BadInput, match="no images in its tar files"):
        open_source(str(folder))


def test_random_damage_never_stops_the_scan(folder):
    whole, random = (folder / "set-0.tar").read_bytes(), np.random.default_rng(0)
    for _ in range(150):
        data = bytearray(whole)
        for place in random.integers(0, len(data) // 512, 4) * 512 + random.integers(0, 345, 4):
            data[place] = random.integers(0, 256)
        (folder / "set-0.tar").write_bytes(data)
        found = tar_shards.scanned(open_shards(folder))
        ends = found["places"][:, 1] + found["places"][:, 2]
        assert (found["places"][:, 1:3] >= 0).all() and (ends <= len(data)).all()
        assert len(found["labels"]) == len(found["names"]) == len(found["places"]) >= 20


def test_a_size_below_zero_ends_the_scan(folder):
    """As base-256 numbers allow, which would send a reader backwards for ever."""
    path = folder / "set-1.tar"
    data = bytearray(path.read_bytes())
    data[124:136] = b"\xff" * 10 + b"\x00\x00"
    data[148:156] = b"%06o\0 " % (sum(data[:148]) + 8 * 32 + sum(data[156:512]))
    path.write_bytes(data)
    source = open_source(str(folder))
    assert len(source.train) + len(source.test) == 20 and any("set-1.tar is damaged" in note for note in source.notes)


def header(kind: bytes, size: int, name: bytes = b"x", more: bytes = b"") -> bytes:
    """One that tells any size; `more` stands at the place of a sparse file's map."""
    data = bytearray(512)
    data[: len(name)], data[100:108], data[156:157] = name, b"0000644\0", kind
    data[124:136] = b"\x80" + size.to_bytes(11, "big")
    data[257:265] = b"ustar  \0"
    data[386 : 386 + len(more)] = more
    data[148:156] = b"%06o\0 " % (sum(data) + 8 * 32)
    return bytes(data)


@pytest.mark.parametrize(
    "hostile",
    [
        header(b"L", 2**80) + bytes(1024),
        header(b"x", 2**80) + bytes(1024),
        header(b"L", 2**62) + bytes(1024),
        header(b"x", 2**62) + bytes(1024),
        (header(b"L", 2) + b"a".ljust(512, b"\0")) * 1500,
        header(b"S", 512, more=bytes(96) + b"\x01"),
        header(b"S", 512, more=bytes(96) + b"\x01") + b"\0" * 100,
    ],
    ids=["long name 2^80", "pax 2^80", "long name 2^62", "pax 2^62", "chain", "sparse", "sparse, cut off"],
)
def test_hostile_headers_end_the_scan(folder, hostile):
    path = folder / "set-1.tar"
    with tarfile.open(path) as tar:
        middle = tar.getmembers()[10].offset
    path.write_bytes(path.read_bytes()[:middle] + hostile)
    source = open_source(str(folder))
    assert len(source.train) + len(source.test) == 25
    assert source.notes[0].startswith("set-1.tar is damaged, 5 images of it are used: ")
    assert not source.notes[0].endswith(": ")


def test_a_name_of_many_bytes_is_passed_over(tmp_path):
    write(tmp_path / "data" / "a.tar", [("a" * 100_000 + ".png", picture(0)), ("b.png", picture(1))])
    source = open_source(str(tmp_path / "data"))
    assert [source.train.name(i) for i in range(len(source.train))] == ["a.tar: b"]


# Which folders


def test_other_folders_stay_what_they_are(folder, tmp_path):
    pack(open_source(str(folder)), tmp_path / "packed")
    assert open_source(str(tmp_path / "packed")).train.name(0).startswith("shard-000000.tar: train-")
    mixed = tmp_path / "mixed"
    (mixed / "sub").mkdir(parents=True)
    for number in range(4):
        (mixed / "sub" / f"{number}.png").write_bytes(picture(number))
    write(mixed / "backup.tar", labelled(0, 3))
    source = open_source(str(mixed))
    assert source.train.paths == [mixed / "sub" / f"{number}.png" for number in range(4)]
    assert source.notes == ("left out: backup.tar beside the images",)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="no images in this folder"):
        open_source(str(tmp_path / "empty"))


def test_only_broken_images_are_refused(tmp_path):
    write(tmp_path / "data" / "a.tar", [("1.png", b"?"), ("2.png", json.dumps([]).encode())])
    with pytest.raises(BadInput, match="none of its 2 images to train on can be decoded"):
        open_source(str(tmp_path / "data"))
