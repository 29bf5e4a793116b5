"""Test images that are copies of training images: found by their bytes, wherever the images lie."""

import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_core.data.dataset import Arrays, Source, open_source
from ssl_core.data.duplicates import find_copies, group_by_size
from ssl_core.data.packing.index import find_duplicates


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two classes of four training and three test images of 16 px, all different and of one size in bytes."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 4), ("test", 3)):
        for kind in "ab":
            (tmp_path / "d" / part / kind).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / "d" / part / kind / f"{i}.ppm")
    return tmp_path / "d"


def copy(folder: Path, source: str, to: str) -> None:
    (folder / to).write_bytes((folder / source).read_bytes())


def test_copies_are_counted_and_named(folder):
    """One under another name, one under another label, one that is there twice; what is alike within a part is none."""
    assert find_copies(open_source(str(folder))).found == 0
    copy(folder, "train/a/0.ppm", "test/a/other name.ppm")
    copy(folder, "train/a/1.ppm", "test/b/1.ppm")
    copy(folder, "train/b/3.ppm", "test/b/2.ppm")
    copy(folder, "train/b/3.ppm", "test/b/twice.ppm")
    copy(folder, "train/a/2.ppm", "train/a/again.ppm")
    copy(folder, "test/a/0.ppm", "test/a/again.ppm")
    open_source.cache_clear()
    found = find_copies(open_source(str(folder)))
    assert (found.test_images, found.compared, found.found, found.relabeled) == (9, 9, 4, 1)
    assert found.pairs[0] == (str(folder / "test/a/other name.ppm"), str(folder / "train/a/0.ppm"))


def test_near_copies_are_counted_and_named(folder):
    """One that was saved as a JPEG; copies to the byte are not among them, nor what cannot be decoded."""
    copy(folder, "train/a/0.ppm", "test/a/0.ppm")
    with Image.open(folder / "train/b/1.ppm") as image:
        image.save(folder / "test/a/saved again.jpg", quality=95)
    (folder / "test/b/0.ppm").write_bytes(b"broken")
    found = find_copies(open_source(str(folder)))
    assert found.near_compared and (found.found, found.near_found) == (1, 1)
    assert found.near_pairs == ((str(folder / "test/a/saved again.jpg"), str(folder / "train/b/1.ppm")),)


def test_of_many_files_near_copies_are_not_looked_for(folder, monkeypatch):
    monkeypatch.setattr("ssl_core.data.duplicates.MAX_DECODED", 7)
    assert not find_copies(open_source(str(folder))).near_compared


def test_packing_keeps_the_test_image_of_copies(folder):
    copy(folder, "train/a/0.ppm", "test/a/0.ppm")
    copy(folder, "train/a/0.ppm", "train/b/0.ppm")
    assert [(part, first) for part, _, first in find_duplicates(open_source(str(folder)))] == [
        ("train", "test-00000000"),
        ("train", "test-00000000"),
    ]


def test_what_cannot_be_read_is_no_copy_of_anything(folder):
    copy(folder, "train/a/0.ppm", "test/a/0.ppm")
    (folder / "test/b/pipe.ppm").symlink_to(folder / "nowhere")
    source = open_source(str(folder))
    (folder / "train/b/0.ppm").unlink()
    os.mkfifo(folder / "train/b/0.ppm")  # reading it would wait for ever
    for name in ("test/b/0.ppm", "test/b/1.ppm"):
        (folder / name).write_bytes(b"")
    assert find_copies(source).found == 1


def test_only_what_may_be_a_copy_is_read(folder):
    """An image of a size of its own is none; without time for the others they are said to be unknown."""
    (folder / "test/a/0.ppm").write_bytes(b"P6\n1 1\n255\nabc")
    source = open_source(str(folder))
    assert len(group_by_size(source)) == 1
    found = find_copies(source, seconds=-1)
    assert (found.test_images, found.compared, found.found, found.near_compared) == (6, 1, 0, False)


def test_pixels_that_are_kept_in_memory():
    pixels, labels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3)).astype(np.uint8), np.arange(6) % 2
    train, test = Arrays(pixels[:4], labels[:4]), Arrays(pixels[[1, 4, 5]], labels[[0, 4, 5]])
    found = find_copies(Source("made up", "digest", 8, train, test, ("a", "b")))
    assert (found.found, found.relabeled, found.pairs) == (1, 1, (("image 0", "image 1"),))
    assert found.near_compared and found.near_found == 0


def test_several_labels():
    """A copy has another label if any of them is not the same."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)
    train = Arrays(pixels, np.array([[True, False], [True, True], [False, False]]))
    test = Arrays(pixels, np.array([[True, False], [True, False], [True, False]]))
    found = find_copies(Source("made up", "digest", 8, train, test, ("a", "b")))
    assert (found.found, found.relabeled) == (3, 1), "the last has no label in train"


@pytest.mark.slow
def test_in_tar_files_and_in_packed_ones(folder, tmp_path, tilespin):
    """Equal originals give equal bytes when they are packed; a tar's held-out images are compared, too."""
    copy(folder, "train/a/0.ppm", "test/a/0.ppm")
    tilespin("pack", folder, tmp_path / "packed", "--side", 16)
    assert find_copies(open_source(str(tmp_path / "packed"))).found == 1
    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars" / "0.tar", "w") as tar:
        for i in range(20):  # of which four are held out
            (tmp_path / "label").write_text(str(i % 2))
            tar.add(folder / "train/a/0.ppm", f"{i:02d}.ppm")
            tar.add(tmp_path / "label", f"{i:02d}.cls")
    found = find_copies(open_source(str(tmp_path / "tars")))
    assert (found.test_images, found.found, found.relabeled) == (4, 4, 4)


@pytest.mark.slow
def test_nothing_is_fetched_for_it(folder, tmp_path, tilespin, monkeypatch):
    """Neither images in a store nor shards there."""
    monkeypatch.setenv("TILESPIN_CACHE", str(tmp_path / "cache"))
    tilespin("pack", folder, tmp_path / "packed", "--side", 16)
    for place in (folder, tmp_path / "packed"):
        source = open_source(f"file://{place}")
        kept = sorted((tmp_path / "cache").rglob("*"))
        found = find_copies(source)
        assert found.remote and (found.test_images, found.compared) == (6, 0)
        assert sorted((tmp_path / "cache").rglob("*")) == kept
