"""Labels and parts of tar files, as people write them."""

import gzip

import numpy as np
import pytest
from support.tar_files import labeled, named, open_shards, picture, write

from ssl_core.data import tar_shards
from ssl_core.data.dataset import open_source
from ssl_core.data.path_patterns import expand_braces
from ssl_core.data.summary import summary
from ssl_core.errors import UserError

pytestmark = pytest.mark.usefixtures("cache")


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
        ({"x.json": b"7"}, "7"),
        ({"x.json": b'\xef\xbb\xbf{"label": 7}'}, "7"),
        ({"x.json": b'{"label": null, "class": 7}'}, "7"),
        ({"x.json": b'{"Label": 7}'}, "7"),
        ({"x.json": b'{"class_id": 7}'}, "7"),
        ({"x.json": b'{"label": "animal"}', "x.cls": b"7"}, "7"),
        ({"x.cls": b"7", "x.json": b'{"label": "animal"}'}, "7"),
        ({"x.json": b"{'label': 7}"}, None),
        ({"x.label": b"7"}, None),
        ({"x.json": b"7" * 400_000}, None),
        ({"x.json": b"[" * 400_000}, None),
        ({"y.cls": b"7"}, None),
        ({"x.txt": b"7"}, None),
    ],
)
def test_where_labels_are_found(tmp_path, files, label):
    write(tmp_path / "data" / "a.tar", [("x.png", picture(0)), *files.items()])
    found = tar_shards.scan_shards_cached(open_shards(tmp_path / "data"))
    assert [found.values[i] if i >= 0 else None for i in found.labels] == [label]
    assert found.names.tolist() == [b"x"] and len(found.offsets) == 1


def test_sparse_class_numbers_become_a_row(tmp_path):
    members = [
        (f"{i}{end}", data)
        for i, cls in enumerate((900, 3, 41) * 5)
        for end, data in ((".jpg", picture(i, "jpeg")), (".cls", str(cls).encode()))
    ]
    write(tmp_path / "data" / "a.tar", members)
    source = open_source(str(tmp_path / "data"))
    assert source.classes == ("3", "41", "900")
    assert {int(source.train.name(i).split(": ")[1]) % 3: int(source.train.labels[i]) for i in range(12)} == {
        0: 2,
        1: 0,
        2: 1,
    }


def test_images_without_a_label_are_trained_on_and_the_others_evaluate(tmp_path):
    write(tmp_path / "data" / "a.tar", [*labeled(0, 10), *((f"u{i}.png", picture(50 + i)) for i in range(4))])
    source = open_source(str(tmp_path / "data"))
    assert len(source.classes) == 2 and (source.train.labels == -1).sum() == 4 and len(source.test) == 2
    assert len(source.train) == 8 + 4 and (source.test.labels >= 0).all()
    assert {source.train.name(int(i)) for i in np.flatnonzero(source.train.labels == -1)} == {
        f"a.tar: u{i}" for i in range(4)
    }
    assert "8 labeled and 4 unlabeled training images, 2 test images" in summary(source)


def test_of_test_shards_the_labeled_images_are_evaluated(tmp_path):
    """Training shards need not be labeled throughout either."""
    write(tmp_path / "data" / "train.tar", [*named(("cat", "dog") * 3), ("u.png", picture(50))])
    write(tmp_path / "data" / "test.tar", [*named(("dog", "cat"), start=100), ("t.png", picture(51))])
    source = open_source(str(tmp_path / "data"))
    assert source.train.labeled.tolist() == [True] * 6 + [False] and source.test.labels.tolist() == [1, 0]
    assert "1 test images without a label are not used" in source.notes
    digest = source.digest
    open_source.cache_clear()
    later = [*named(("dog", "cat"), start=100), ("t.png", picture(51)), ("t.cls", b"cat")]
    write(tmp_path / "data" / "test.tar", later)
    assert open_source(str(tmp_path / "data")).digest != digest, "although the file is as large as before"


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
        (("-1", "7"), "cls", "labels are not used, all images have the same: 7"),
    ],
)
def test_labels_that_are_not_used_are_named(tmp_path, labels, kind, note):
    write(tmp_path / "data" / "a.tar", named(labels * 5, kind))
    source = open_source(str(tmp_path / "data"))
    assert source.classes == () and note in source.notes


@pytest.mark.parametrize(
    ("members", "notes"),
    [
        ({"x.label": b"7", "y.label": b"8"}, ("not read as labels, which are .cls or .json: 2 .label",)),
        ({"x.json": b"{'label': 7}"}, ("1 labels cannot be used, such as \"{'label': 7}\", which is no JSON",)),
        (
            {"cat/x.png": picture(1), "dog/x.png": picture(2)},
            ("folders within tar files are not read as splits or classes: extract the files, and give their folder",),
        ),
    ],
)
def test_why_there_are_no_labels_is_said(tmp_path, members, notes):
    write(tmp_path / "data" / "a.tar", [("x.png", picture(0)), *members.items()])
    assert open_source(str(tmp_path / "data")).notes == notes


def test_splits_within_a_tar_are_refused(tmp_path):
    members = [(f"{part}/{kind}/{i}.png", picture(i)) for part in ("train", "test") for kind in "ab" for i in range(3)]
    write(tmp_path / "data" / "a.tar", members)
    with pytest.raises(UserError, match=r"extract the files, and give their folder; found test/, train/"):
        open_source(str(tmp_path / "data"))


def test_test_shards_without_labels_give_way_to_validation_shards(tmp_path):
    write(tmp_path / "data" / "train-0.tar", named(("cat", "dog") * 5))
    write(tmp_path / "data" / "test-0.tar", [("t.png", picture(50))])
    write(tmp_path / "data" / "val-0.tar", named(("Dog", "Cat") * 2, start=100))
    source = open_source(str(tmp_path / "data"))
    assert source.classes == ("cat", "dog") and source.test.labels.tolist() == [1, 0, 1, 0]
    assert source.notes == (
        "trained on 1 train shards, tested on 1 val shards, by their names",
        "not used: 1 test shards",
    )


def test_validation_shards_without_labels_test_nothing(tmp_path):
    write(tmp_path / "data" / "train-0.tar", [("t.png", picture(0))])
    write(tmp_path / "data" / "val-0.tar", [("v.png", picture(1))])
    source = open_source(str(tmp_path / "data"))
    assert len(source.test) == 0
    assert source.notes == ("trained on 1 train shards, by their names", "not used: 1 val shards")


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
    with pytest.raises(UserError, match="no shards to train on: found 1 test shards"):
        open_source(str(tmp_path / "data"))
    write(tmp_path / "data" / "train-0.tar", named(("cat", "cow") * 5))
    open_source.cache_clear()
    with pytest.raises(UserError, match="test shards have classes that the training shards lack: dog"):
        open_source(str(tmp_path / "data"))


def test_unlabeled_shards_are_trained_on_without_labels(tmp_path):
    for part in ("train", "test", "unlabeled"):
        write(tmp_path / "data" / f"{part}.tar", named(("cat", "dog") * 3))
    source = open_source(str(tmp_path / "data"))
    assert (len(source.train), len(source.test)) == (12, 6)
    assert "trained on without labels: 1 unlabeled shards" in source.notes
    assert (source.train.labels >= 0).tolist() == [True] * 6 + [False] * 6


def test_one_file_or_a_pattern_of_several(shards):
    assert len(open_source(str(shards / "set-1.tar")).train) == 8
    for pattern in ("set-{0..1}.tar", "set-{0,1}.tar", "set-[01].tar"):
        source = open_source(str(shards / pattern))
        assert len(source.train) + len(source.test) == 20, pattern
    assert expand_braces("a-{08..11}-{x,y}.tar")[::2] == ["a-08-x.tar", "a-09-x.tar", "a-10-x.tar", "a-11-x.tar"]
    assert expand_braces("{8..10}") == ["8", "9", "10"]
    for pattern, why in (("set-{0..3}.tar", r"there is no .*set-3\.tar"), ("other-*.tar", "no file fits this pattern")):
        with pytest.raises(UserError, match=why):
            open_source(str(shards / pattern))


def test_shards_go_before_a_few_images_beside_them(shards):
    (shards / "preview.png").write_bytes(picture(0))
    source = open_source(str(shards))
    assert len(source.train) + len(source.test) == 30 and "left out: preview.png beside the shards" in source.notes


@pytest.mark.parametrize("end", [".tar.gz", ".tgz", ".tar.zst"])
def test_compressed_shards_are_refused_with_what_to_do(tmp_path, end):
    (tmp_path / f"a{end}").write_bytes(b"compressed")
    with pytest.raises(UserError, match=rf"a{end} is compressed.*decompress it first, into a\.tar"):
        open_source(str(tmp_path))
    with pytest.raises(UserError, match=rf"a{end} is compressed"):
        open_source(str(tmp_path / f"a{end}"))


@pytest.mark.parametrize("name", ["set[1].tar", "set{1}.tar"])
def test_a_name_that_looks_like_a_pattern(shards, name):
    (shards / "set-1.tar").rename(shards / name)
    assert len(open_source(str(shards / name)).train) == 8


def test_a_compressed_file_that_is_called_tar(shards):
    (shards / "set-1.tar").write_bytes(gzip.compress((shards / "set-1.tar").read_bytes()))
    assert (
        "set-1.tar is damaged, 0 images of it are used: it is compressed: decompress"
        in open_source(str(shards)).notes[0]
    )
