"""Folders of images: what is found in them, which are splits and classes, and what is refused."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from support.command import ROOT, environment
from support.image_folders import names_of, put

from ssl_core.data.dataset import open_source
from ssl_core.data.loaders.cpu import CpuLoader
from ssl_core.errors import UserError

CPU = torch.device("cpu")


def test_a_flat_folder_has_no_labels(tmp_path):
    put(tmp_path, "b.png", "a.JPG", "c.bmp")
    (tmp_path / "notes.txt").write_text("not an image")
    put(tmp_path, ".hidden.png")
    source = open_source(str(tmp_path))
    assert names_of(source.train, tmp_path) == ["a.JPG", "b.png", "c.bmp"]
    assert source.train.labels.tolist() == [-1, -1, -1]
    assert source.classes == () and len(source.test) == 0 and source.size == 96
    assert open_source(str(tmp_path), 40).size == 40


def test_sub_folders_are_classes_and_some_images_are_held_out(tmp_path):
    put(tmp_path, *(f"{kind}/{i}.png" for kind in ("dog", "cat") for i in range(40)))
    source = open_source(str(tmp_path))
    assert source.classes == ("cat", "dog")
    for part in (source.train, source.test):
        said = [source.classes[label] for label in part.labels]
        assert said == [path.parent.name for path in part.paths]
    together = names_of(source.train, tmp_path) + names_of(source.test, tmp_path)
    assert len(set(together)) == len(together) == 80
    assert 5 <= len(source.test) <= 30
    assert source.notes == (f"{len(source.test)} of 80 images are held out as test data, chosen by their paths",)


@pytest.mark.parametrize("test", ["test", "val", "Validation"])
def test_train_and_test_sub_folders_are_taken_as_they_are(tmp_path, test):
    put(tmp_path, "Train/cat/1.png", "Train/dog/deep/2.png", f"{test}/dog/3.png", f"{test}/cat/4.png")
    source = open_source(str(tmp_path))
    assert source.classes == ("cat", "dog") and source.notes == (f"trained on Train/, tested on {test}/",)
    assert names_of(source.train, tmp_path) == ["Train/cat/1.png", "Train/dog/deep/2.png"]
    assert dict(zip(names_of(source.test, tmp_path), source.test.labels.tolist())) == {
        f"{test}/cat/4.png": 0,
        f"{test}/dog/3.png": 1,
    }
    assert source.train.labels.tolist() == [0, 1]


def test_images_are_found_at_any_depth(tmp_path):
    put(tmp_path, "a/b/c/d/1.png", "a/2.png", "a/b/3.png")
    source = open_source(str(tmp_path))
    assert names_of(source.train, tmp_path) == ["a/2.png", "a/b/3.png", "a/b/c/d/1.png"]
    assert source.classes == ()  # one first-level folder tells nothing apart


def test_names_may_be_in_any_script(tmp_path):
    undecodable = os.fsdecode(b"\xff\xfe.png")
    put(tmp_path, "кошка/ñandú.png", "кошка/猫.png", "犬/🐕.png", f"犬/{undecodable}")
    source = open_source(str(tmp_path))
    assert source.classes == ("кошка", "犬")
    assert len(source.train) + len(source.test) == 4
    batch = next(CpuLoader(source.train, 16, CPU, 0).evaluation(np.arange(len(source.train))))
    assert (batch.weights == 1).all()


def test_a_loop_of_links_is_walked_once(tmp_path):
    put(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "b" / "self").symlink_to(tmp_path / "b", target_is_directory=True)
    assert len(open_source(str(tmp_path)).train) + len(open_source(str(tmp_path)).test) == 2


def test_of_a_folder_and_links_to_it_the_folder_is_taken(tmp_path):
    found = []
    for root, links in (("one", "abcdefgh"), ("other", "hgfedcba")):
        put(tmp_path / root, "real/1.png")
        for link in links:
            (tmp_path / root / link).symlink_to("real", target_is_directory=True)
        found.append(names_of(open_source(str(tmp_path / root)).train, tmp_path / root))
    assert found == [["real/1.png"], ["real/1.png"]]
    assert "links to folders that are there already: a, b, c and 5 more" in open_source(str(tmp_path / "one")).notes


def test_a_class_whose_images_are_missing_is_named(tmp_path):
    put(tmp_path, "cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png")
    (tmp_path / "bird" / "raw").mkdir(parents=True)
    (tmp_path / "bird" / "1.txt").touch()
    source = open_source(str(tmp_path))
    assert source.classes == ("cat", "dog") and "no images in bird/" in source.notes


def test_linked_images_are_followed(tmp_path):
    put(tmp_path / "elsewhere", "1.png", "2.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "images").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert len(open_source(str(tmp_path / "data")).train) == 2


def test_the_digest_names_paths_and_sizes(tmp_path):
    put(tmp_path, "1.png", "2.png")
    first = open_source(str(tmp_path)).digest
    assert open_source(str(tmp_path)).digest == first
    (tmp_path / "2.png").rename(tmp_path / "3.png")
    open_source.cache_clear()
    assert open_source(str(tmp_path)).digest != first


def test_every_class_has_test_images(tmp_path):
    """One in five of each class, at least one of two; a lone image is trained on."""
    put(tmp_path, *(f"a/{i}.png" for i in range(10)), "b/0.png", "b/1.png", "c/0.png")
    source = open_source(str(tmp_path))
    assert np.bincount(source.test.labels, minlength=3).tolist() == [2, 1, 0]
    assert np.bincount(source.train.labels, minlength=3).tolist() == [8, 1, 1]


def test_a_train_part_alone_is_split(tmp_path):
    put(tmp_path, *(f"train/{kind}/{i}.png" for kind in ("dog", "cat") for i in range(5)))
    source = open_source(str(tmp_path))
    assert source.classes == ("cat", "dog") and (len(source.train), len(source.test)) == (8, 2)


def test_a_flat_test_part_is_left_alone(tmp_path):
    """As competitions ship them: it has no labels to judge by."""
    put(tmp_path, *(f"train/{kind}/{i}.png" for kind in ("dog", "cat") for i in range(5)), "test/1.png", "test/2.png")
    source = open_source(str(tmp_path))
    assert source.classes == ("cat", "dog") and (len(source.train), len(source.test)) == (8, 2)
    assert not any("test" in path.parts[-2:] for path in [*source.train.paths, *source.test.paths])


def test_refuses_folders_without_images(tmp_path):
    (tmp_path / "readme.txt").write_text("nothing to see")
    with pytest.raises(UserError, match="no images in this folder"):
        open_source(str(tmp_path))


def test_refuses_folders_with_only_broken_images(tmp_path):
    for name in ("1.png", "2.jpg"):
        (tmp_path / name).write_bytes(b"this is no picture")
    with pytest.raises(UserError, match="none of its 2 images to train on can be decoded"):
        open_source(str(tmp_path))


def test_refuses_a_name_that_nothing_opens(tmp_path):
    with pytest.raises(UserError, match=r"no such folder.*cifar10, fashion-mnist"):
        open_source(str(tmp_path / "absent"))


def test_a_name_that_no_folder_can_have():
    with pytest.raises(UserError, match=r"--data x+: cannot be read: File name too long"):
        open_source("x" * 300)


@pytest.mark.slow
def test_a_folder_that_may_not_be_read(tmp_path):
    """In a process of another user, for root may read everything."""
    put(tmp_path / "closed" / "data", "1.png", "2.png")
    (tmp_path / "closed").chmod(0)
    code = (
        "import os, sys; from ssl_core.data.data_source import data_sources\n"
        "from ssl_core.data.dataset import open_source\n"
        "from ssl_core.errors import UserError; data_sources()  # as whom they can be read\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: open_source(sys.argv[1])\n"
        "except UserError as error: print(error)"
    )
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):
        folder.chmod(0o755)
    try:
        env = environment() | {"PYTHONPATH": str(ROOT)}
        run = [sys.executable, "-c", code, str(tmp_path / "closed" / "data")]
        done = subprocess.run(run, env=env, capture_output=True, text=True)
    finally:
        (tmp_path / "closed").chmod(0o755)
    assert "data: cannot be read: Permission denied" in done.stdout, done.stderr
