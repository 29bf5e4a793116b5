"""What real folders are taken for: wrappers, splits under any name, stray files, hidden folders, odd class names."""

import os
import unicodedata

import numpy as np
import pytest
from PIL import Image
from support.synthetic_images import gradients

from ssl_core.data.dataset import Source, open_source
from ssl_core.data.folder_layout import find_layout
from ssl_core.data.split_names import split_roles
from ssl_core.errors import UserError


def tree(*places: str, n: int = 4) -> list[tuple[str, ...]]:
    """`n` images in each folder of `places`; a place with an extension is one image."""
    names = [place if "." in place else f"{place}/{i}.png" for place in places for i in range(1 if "." in place else n)]
    return sorted(tuple(name.split("/")) for name in names)


def classes(*roots: str) -> list[str]:
    return [f"{root}/{kind}".lstrip("/") for root in roots for kind in ("cat", "dog")]


CAT_DOG = ("cat", "dog")
UNLABELED = "trained on without labels"


@pytest.mark.parametrize(
    ("images", "names", "train", "test", "note"),
    [
        # wrappers, as unzipped archives have them
        (classes("data/train", "data/test"), CAT_DOG, "data/train", "data/test", "trained on data/train/, tested on"),
        (classes("a/b/train", "a/b/val"), CAT_DOG, "a/b/train", "a/b/val", "trained on a/b/train/, tested on a/b/val/"),
        (classes("birds"), CAT_DOG, "birds", None, "read from birds/"),
        ([*classes("birds/all"), "cover.png"], CAT_DOG, "birds/all", None, "left out: cover.png beside birds/"),
        (classes("train/images", "test/images"), CAT_DOG, "train/images", "test/images", "tested on test/"),
        (classes("train/train", "test/test"), CAT_DOG, "train/train", "test/test", "trained on train/, tested on"),
        (["images/train", "images/val"], (), "images/train", None, "trained on images/train/"),
        # folders beside the one that is divided into splits
        ([*classes("ds/train", "ds/test"), "docs"], CAT_DOG, "ds/train", "ds/test", "not used: docs/ (4 images)"),
        ([*classes("ds/train", "ds/val"), "a", "b"], CAT_DOG, "ds/train", "ds/val", "not used: a/ (4 images), b/"),
        (["cat", "cat/test", "dog"], CAT_DOG, None, None, ""),  # a class with a folder of its own
        # splits under the names that people give them
        (classes("Training", "Testing"), CAT_DOG, "Training", "Testing", "tested on Testing/"),
        (classes("train2017", "val2017"), CAT_DOG, "train2017", "val2017", "tested on val2017/"),
        (classes("seg_train", "seg_test"), CAT_DOG, "seg_train", "seg_test", "tested on seg_test/"),
        (classes("TRAIN", "DEV"), CAT_DOG, "TRAIN", "DEV", "tested on DEV/"),
        (classes("trainval", "eval"), CAT_DOG, "trainval", "eval", "tested on eval/"),
        (classes("train_images", "validation_images"), CAT_DOG, "train_images", "validation_images", "tested on"),
        (classes("train", "val", "test"), CAT_DOG, "train", "test", "not used: val/ (8 images)"),
        ([*classes("train"), "test"], CAT_DOG, "train", None, "not used: test/ (4 images)"),
        ([*classes("train"), "test", *classes("val")], CAT_DOG, "train", "val", "not used: test/ (4 images)"),
        ([*classes("", "test")], CAT_DOG, None, "test", "tested on test/"),
        (["cat", "dog", "test"], CAT_DOG, None, None, "not used: test/ (4 images)"),
        ([*classes("train"), *classes("test"), "extra"], CAT_DOG, "train", "test", "not used: extra/ (4 images)"),
        # images without labels are no class
        (["cat", "dog", "unlabelled"], CAT_DOG, None, None, f"{UNLABELED}: unlabelled/ (4 images)"),
        ([*classes("train", "test"), "Unlabeled"], CAT_DOG, "train", "test", f"{UNLABELED}: Unlabeled/ (4 images)"),
        ([*classes("train", "test"), "train/unsup"], CAT_DOG, "train", "test", f"{UNLABELED}: train/unsup/ (4"),
        (["cat", "dog", "un-labelled"], CAT_DOG, None, None, f"{UNLABELED}: un-labelled/ (4 images)"),
        (["cat", "dog", "Not Labeled"], CAT_DOG, None, None, f"{UNLABELED}: Not Labeled/ (4 images)"),
        ([*classes("train", "test"), "unsup", "a"], CAT_DOG, "train", "test", f"a/ (4 images); {UNLABELED}: unsup/"),
        ([*classes("ds/train", "ds/test"), "unsup", "a"], CAT_DOG, "ds/train", "ds/test", f"{UNLABELED}: unsup/ (4"),
        (["train", "unlabeled"], (), "train", None, f"{UNLABELED}: unlabeled/ (4 images)"),
        ([*CAT_DOG, *classes("hold_out")], CAT_DOG, None, "hold_out", "tested on hold_out/"),
        (["unlabeled", *classes("labeled")], CAT_DOG, "labeled", None, f"{UNLABELED}: unlabeled/ (4 images)"),
        (["unlabeled", *classes("test")], (), "unlabeled", None, "trained on unlabeled/"),
        # a few images beside class folders
        ([*CAT_DOG, "cover.png"], CAT_DOG, None, None, "left out: cover.png beside the class folders"),
        ([*CAT_DOG, *(f"{i}.png" for i in range(5))], CAT_DOG, None, None, "left out: 0.png, 1.png, 2.png and 2 more"),
        ([*CAT_DOG, *(f"{i}.png" for i in range(9))], (), None, None, "labels are not used: 9 images lie beside"),
        ([*classes("train", "test"), "train/logo.png"], CAT_DOG, "train", "test", "left out: train/logo.png"),
        ([*classes("train", "test"), "test/logo.png"], CAT_DOG, "train", "test", "left out: test/logo.png"),
        ([*classes("train", "test"), "logo.png"], CAT_DOG, "train", "test", "left out: logo.png beside train/"),
        # things whose names have a split's word in them
        (["train_station", "test_tube", "bus"], ("bus", "test_tube", "train_station"), None, None, ""),
        (["station", "train_station", "bus"], ("bus", "station", "train_station"), None, None, ""),
        (["trainer", "valley"], ("trainer", "valley"), None, None, ""),
        (["train/bus", "train/train", "test/bus", "test/train"], ("bus", "train"), "train", "test", "tested on test/"),
        # neither
        (["a", "a/b", "a/b/c"], (), None, None, ""),
        ([f"{i}.png" for i in range(3)], (), None, None, ""),
        (classes("fold1", "fold2"), ("fold1", "fold2"), None, None, "every class folder has cat, dog: if these"),
    ],
)
def test_what_folders_are_taken_for(images, names, train, test, note):
    found = find_layout(tree(*images))
    assert found.classes == names
    if train:
        assert found.train and all("/".join(image).startswith(f"{train}/") for image in found.train)
    if test:
        assert found.test and all("/".join(image).startswith(f"{test}/") for image in found.test)
    else:
        assert not found.test
    assert note in "; ".join(found.notes), found.notes
    assert not set(found.train) & set(found.test) and len(found.unlabeled) == 4 * (UNLABELED in note)
    assert not set(found.unlabeled) & {*found.train, *found.test}
    if names:
        assert all(names[found.labels[image]] in image for image in (*found.train, *found.test))


@pytest.mark.parametrize(
    ("images", "why"),
    [
        (classes("val", "test"), r"no images to train on: found test/ \(8 images\), val/ \(8 images\)"),
        (["test"], "no images to train on: found test/"),
        (classes("data/test"), "no images to train on: found data/test/"),
        (classes("cifar", "cifar-holdout"), "cifar-holdout/ has the name of a split, others beside it have not: found"),
        (["bus", "car", "train"], "train/ has the name of a split.*rename it if it is a class"),
        (["valid", "invalid"], "valid/ has the name of a split"),
        (classes("train1", "train2", "test"), "several training splits: found test/.*train1/.*train2/"),
        (
            ["cat/train", "cat/test", "dog/train"],
            "several folders have splits of their own: found cat/.*give one of them",
        ),
        (classes("a/train", "b/test"), "several folders have splits of their own"),
        (["a/train/good", "a/test/bad", "a/truth", "b/train/good", "b/test/bad"], "several folders have splits"),
        ([*classes("train"), *classes("train/val")], "train/val/ has the name of a split, others beside it have not"),
        ([*classes("train", "test"), "test/cow"], "test/ has 1 classes that train/ lacks, such as cow"),
    ],
)
def test_what_cannot_be_understood_is_refused_with_what_was_found(images, why):
    with pytest.raises(UserError, match=why):
        find_layout(tree(*images))


def test_class_names_in_other_unicode_forms_or_case():
    composed, decomposed = "caf\xe9", unicodedata.normalize("NFD", "caf\xe9")
    found = find_layout(tree(f"train/{decomposed}", "train/tea", f"test/{composed}", "test/tea"))
    assert found.classes == (composed, "tea") and len(found.test) == 8
    one = find_layout(tree(composed, decomposed, "tea"))
    assert one.classes == (composed, "tea") and "Unicode form are one class" in one.notes[0]
    by_case = find_layout(tree("train/Cat", "train/dog", "test/cat", "test/DOG"))
    assert by_case.classes == ("Cat", "dog")
    assert {"test/cat/ is taken for the class Cat", "test/DOG/ is taken for the class dog"} <= set(by_case.notes)
    assert find_layout(tree("a", "A", "b")).notes == ["the classes A and a differ only in case"]


def test_names_of_splits():
    assert split_roles(["train", "Test Set", "val-2017", "un", "trains"]) == {
        "train": "train",
        "Test Set": "test",
        "val-2017": "val",
    }
    assert split_roles(["ValidSet", "trainImages", "unlabeled2017"]) == {
        "ValidSet": "val",
        "trainImages": "train",
        "unlabeled2017": "unlabeled",
    }
    assert split_roles(["XTrain", "XTest", "no_label"]) == {
        "XTrain": "train",
        "XTest": "test",
        "no_label": "unlabeled",
    }


# Real files


def put(root, *names: str, format: str | None = None) -> None:
    for image, name in zip(gradients(len(names), 16).numpy(), names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / name, format)


def opened(root) -> Source:
    open_source.cache_clear()
    return open_source(str(root))


@pytest.mark.parametrize(
    "hidden",
    [".ipynb_checkpoints", ".git", "__MACOSX", "@eaDir", ".Trash-1000", "$RECYCLE.BIN", "lost+found", ".DS_Store"],
)
def test_hidden_and_system_folders_are_not_looked_into(tmp_path, hidden):
    put(tmp_path, *(f"{kind}/{i}.png" for kind in CAT_DOG for i in range(5)))
    before = opened(tmp_path)
    put(tmp_path, f"{hidden}/1.png", f"{hidden}/cat/2.png", f"cat/{hidden}/3.png")
    after = opened(tmp_path)
    assert after.classes == CAT_DOG and after.digest == before.digest
    assert f"not looked into: {hidden}" in after.notes


def test_a_hidden_folder_may_be_given_itself(tmp_path):
    put(tmp_path / ".cache" / "images", "1.png", "2.png")
    assert len(opened(tmp_path / ".cache" / "images").train) == 2


@pytest.mark.parametrize(
    "name", ["features.h5", "clip.mpg", "plot.eps", "folder.ico", "clip.mpeg", "font.icns", "a.pdf"]
)
def test_only_formats_of_pictures_are_images(tmp_path, name):
    put(tmp_path, *(f"{kind}/{i}.png" for kind in CAT_DOG for i in range(5)))
    (tmp_path / name).write_bytes(b"whatever it is")
    found = opened(tmp_path)
    assert found.classes == CAT_DOG and len(found.train) + len(found.test) == 10
    assert f"1 other file ({os.path.splitext(name)[1]}) left out" in found.notes


def test_pictures_are_known_by_content_where_the_name_says_nothing(tmp_path):
    put(tmp_path, "photo", "photo.0001", "sub/other", format="jpeg")
    put(tmp_path, "stereo.mpo", format="mpo")
    (tmp_path / "README").write_text("no picture")
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    found = opened(tmp_path)
    assert sorted(path.name for path in found.train.paths) == ["other", "photo", "photo.0001", "stereo.mpo"]
    assert "3 other files (no extension) left out" in found.notes


def test_files_that_need_another_reader_are_counted_and_the_reader_named(tmp_path):
    put(tmp_path, "1.png")
    for number in range(3):
        (tmp_path / f"{number}.jxl").write_bytes(b"\xff\x0a")
    assert "3 .jxl files not read (to read them: pip install pillow-jxl-plugin)" in opened(tmp_path).notes
    (tmp_path / "1.png").unlink()
    with pytest.raises(UserError, match=r"no images in this folder: 3 \.jxl files not read"):
        opened(tmp_path)


def test_none_that_can_be_decoded_says_why(tmp_path):
    (tmp_path / "1.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"can be decoded, such as .*1\.png: cannot identify image file"):
        opened(tmp_path)


def test_labels_of_files_are_those_of_their_folders(tmp_path):
    folders = [f"data/{part}/{kind}" for part in ("train", "test") for kind in CAT_DOG]
    put(tmp_path, "cover.png", *(f"{folder}/{i}.png" for folder in folders for i in range(3)))
    found = opened(tmp_path)
    for part, name in ((found.train, "train"), (found.test, "test")):
        assert [path.parts[-3] for path in part.paths] == [name] * 6
        assert [found.classes[label] for label in part.labels] == [path.parts[-2] for path in part.paths]
    assert np.bincount(found.train.labels).tolist() == [3, 3]
