"""Folders of images with masks: which layouts are understood, and what is refused in one line."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from support.image_folders import names_of
from support.masked_folders import VOID, put_ade, rectangles, save_pair

from jobs.commands import data as data_command
from ssl_core.data.dataset import open_source
from ssl_core.data.loaders.cpu import CpuLoader
from ssl_core.data.mask_reading import read_masks
from ssl_core.data.summary import summary
from ssl_core.errors import UserError


@pytest.fixture(autouse=True)
def opened_anew():
    open_source.cache_clear()


def put_voc(root):
    """VOC's folders: palette masks, lists of names, an image in no list, and other annotations."""
    top, names = root / "VOCdevkit" / "VOC2012", [f"2007_{i:06d}" for i in range(7)]
    for i, name in enumerate(names):
        image, mask = top / "JPEGImages" / f"{name}.jpg", top / "SegmentationClass" / f"{name}.png"
        save_pair(image, mask, rectangles(30, 44, i), palette=True, void=2)
        save_pair(image, top / "SegmentationObject" / f"{name}.png", rectangles(30, 44, i), palette=True)
    (top / "SegmentationClass" / f"{names[6]}.png").unlink()
    lists = top / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("".join(f"{name}\n" for name in (names[3], names[0], names[1])))
    (lists / "val.txt").write_text("".join(f"{name}\n" for name in names[4:6]))
    return top


def test_voc_by_its_lists(tmp_path):
    top = put_voc(tmp_path)
    source = open_source(str(tmp_path), 16)
    masks = source.masks
    assert masks and masks.classes == ("0", "1", "2", "3") and not masks.zero_is_void and not source.classes
    wanted = [f"JPEGImages/2007_{i:06d}.jpg" for i in (3, 0, 1)]
    assert names_of(source.train, top) == wanted and len(source.test) == 2
    assert names_of(masks.train, top) == [f"SegmentationClass/2007_{i:06d}.png" for i in (3, 0, 1)]
    every = np.concatenate([rectangles(30, 44, i)[2:].ravel() for i in (3, 0, 1)])
    assert masks.pixels["train"].tolist() == [*np.bincount(every, minlength=4), 3 * 2 * 44]
    assert "10 other image files are not used" in summary(source) and "masks of 4 classes" in summary(source)
    (top / "classes.txt").write_text("background\ncat\ndog\ncat\n")
    open_source.cache_clear()
    named = open_source(str(tmp_path), 16)
    assert named.masks and named.masks.classes == ("background", "cat (1)", "dog", "cat (3)")
    assert named.digest != source.digest


def test_ade20k_where_zero_is_no_class(tmp_path):
    put_ade(tmp_path, 4, 2)
    (tmp_path / "objectInfo150.txt").write_text(
        "Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t.2\t1\t1\t1\twall\n2\t.1\t1\t1\t1\tbuilding, edifice\n"
        "3\t.1\t1\t1\t1\tsky\n"
    )
    source = open_source(str(tmp_path), 40)
    masks = source.masks
    assert masks and masks.classes == ("wall", "building", "sky") and masks.zero_is_void
    assert (len(source.train), len(source.test), len(masks.train), len(masks.test)) == (4, 2, 4, 2)
    first = rectangles(40, 56, 0)[:, 8:48]
    (found,) = read_masks(masks, "train", np.array([0]), 40)
    np.testing.assert_array_equal(found, np.where(first == 0, VOID, first.astype(int) - 1))
    values = np.concatenate([rectangles(40, 56, i).ravel() for i in range(4)])
    assert masks.pixels["train"].tolist() == np.bincount(values, minlength=4)[[1, 2, 3, 0]].tolist()


@pytest.mark.parametrize("layout", ["images/{part}/{i}.jpg", "{part}/images/{i}.jpg"])
def test_masks_below_or_beside_splits(tmp_path, layout):
    for part, count in (("train", 3), ("test", 2)):
        for i in range(count):
            image = layout.format(part=part, i=i)
            mask = image.replace("images", "masks").replace("jpg", "png")
            save_pair(tmp_path / image, tmp_path / mask, rectangles(20, 20, i))
    source = open_source(str(tmp_path))
    assert source.masks and (len(source.train), len(source.test), source.size) == (3, 2, 96)


def test_without_splits_one_image_in_five_is_held_out(tmp_path):
    for i in range(10):
        save_pair(tmp_path / f"images/{i}.png", tmp_path / f"masks/{i}.png", rectangles(20, 20, i))
    source = open_source(str(tmp_path))
    assert source.masks and (len(source.train), len(source.masks.test)) == (8, 2)
    names = zip(names_of(source.test, tmp_path / "images"), names_of(source.masks.test, tmp_path / "masks"))
    assert all(image == mask for image, mask in names)
    other = open_source(str(put_ade(tmp_path / "other", 3, 2)))
    assert other.masks and other.digest != source.digest


def test_images_and_masks_as_classes_stay_classes(tmp_path):
    for i in range(4):
        save_pair(tmp_path / f"images/a{i}.png", tmp_path / f"masks/b{i}.png", rectangles(20, 20, i))
    source = open_source(str(tmp_path))
    assert source.masks is None and source.classes == ("images", "masks")


def test_a_folder_in_a_store(tmp_path, monkeypatch):
    monkeypatch.setenv("TILESPIN_CACHE", str(tmp_path / "cache"))
    put_voc(tmp_path)
    (tmp_path / "VOCdevkit/VOC2012/classes.txt").write_text("sky\nsea\nsand\nsail\n")
    local, remote = open_source(str(tmp_path / "VOCdevkit"), 16), open_source(f"file://{tmp_path}/VOCdevkit", 16)
    assert local.masks and remote.masks and remote.masks.classes == ("sky", "sea", "sand", "sail")
    for part, ids in (("train", np.array([2, 0, 1])), ("test", np.array([1, 0]))):
        assert (read_masks(local.masks, part, ids, 16) == read_masks(remote.masks, part, ids, 16)).all()
        assert (local.masks.pixels[part] == remote.masks.pixels[part]).all()
    assert [*map(remote.train.name, range(3))] == [f"file://{local.train.name(i)}" for i in range(3)]


def _write(path, values, mode=None):
    Image.fromarray(values).convert(mode or "L").save(path)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (
            lambda root: (root / "annotations/training/001.png").unlink(),
            "1 of 4 images have no mask, such as images/tr",
        ),
        (
            lambda root: _write(root / "annotations/validation/000.png", rectangles(56, 40, 0)),
            r"annotations/validation/000.png has 40 x 56 pixels, its image .*images/validation/000.png 56 x 40",
        ),
        (
            lambda root: (root / "annotations/training/002.png").write_bytes(b"no image"),
            "annotations/training/002.png cannot be read",
        ),
        (
            lambda root: _write(root / "annotations/training/002.png", rectangles(40, 56, 0), "RGB"),
            "002.png has the mode RGB, expected one number a pixel",
        ),
        (
            lambda root: (root / "classes.txt").write_text("a\nb\nc\n"),
            "has the value 3, and there are 3 classes, 0 to 2; 255 stands for none",
        ),
        (
            lambda root: [_write(path, np.uint8(255) * (rectangles(40, 56, 0) > 1)) for path in root.glob("ann*/*/*")],
            r"masks have the values \[0, 255\] only: expected at least two classes",
        ),
        (
            lambda root: put_ade(root / "again", 2, 2),
            "several folders have masks of their own: again/, the folder itself",
        ),
    ],
)
def test_what_is_refused(tmp_path, spoil, message):
    put_ade(tmp_path, 4, 2)
    spoil(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        open_source(str(tmp_path))
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"--data {tmp_path}: ")


def test_a_mask_that_changed_is_read_again(tmp_path):
    put_ade(tmp_path, 2, 2)
    masks = open_source(str(tmp_path), 16).masks
    assert masks
    Image.fromarray(np.full((40, 56), 9, np.uint8)).save(tmp_path / "annotations/training/001.png")
    with pytest.raises(UserError, match=r"001\.png has the value 9, and there are 4 classes"):
        read_masks(masks, "train", np.arange(2), 16)
    open_source.cache_clear()
    again = open_source(str(tmp_path), 16).masks
    assert again and len(again.classes) == 10 and again.pixels["train"][9] == 40 * 56


@pytest.mark.parametrize("ending, tolerance", [("png", 1.01), ("jpg", 2.6)])
@pytest.mark.parametrize("side", [(97, 61), (33, 200), (249, 131), (64, 64), (7, 9)])
def test_masks_are_cut_as_images_are(tmp_path, ending, tolerance, side):
    """An image as gray as its pixels' places along an axis, with the same numbers for a mask."""
    for axis in range(2):
        values = np.broadcast_to(np.expand_dims(np.arange(side[axis]), 1 - axis), side).astype(np.uint8)
        for folder, kind in (("images", ending), ("masks", "png")):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(values).save(tmp_path / folder / f"{axis}.{kind}", quality=100)
    source = open_source(str(tmp_path), 32)
    assert source.masks
    for part in ("train", "test"):
        (batch,) = CpuLoader(getattr(source, part), 32, torch.device("cpu"), 1).evaluation(np.array([0]))
        (found,) = read_masks(source.masks, part, np.array([0]), 32)
        inner = slice(3, -3)  # what is resized at an edge lacks one of its sides
        apart = batch.images[0, inner, inner, 0].numpy() - found[inner, inner].astype(float)
        assert np.abs(apart).max() <= tolerance and len(np.unique(found)) > 6


def test_the_description_has_the_share_of_each_class(tmp_path, capsys):
    put_ade(tmp_path / "set", 4, 2, void=4)
    (tmp_path / "set" / "classes.txt").write_text("sky\nsea\nsand\nsail\n")
    data_command.main([str(tmp_path / "set"), "--json", str(tmp_path / "out.json")])
    shown = capsys.readouterr().out
    record = json.loads((tmp_path / "out.json").read_text())
    train = record["splits"]["train"]
    wanted = np.bincount(np.concatenate([rectangles(40, 56, i)[4:].ravel() for i in range(4)]))
    assert [train["pixels"][name] for name in ("sky", "sea", "sand", "sail")] == wanted.tolist()
    assert train["void"] == 4 * 4 * 56 and record["classes"] == 0
    assert f"{100 * wanted[0] / wanted.sum():.2f}" in shown and "of no class" in shown and "10.00" in shown
