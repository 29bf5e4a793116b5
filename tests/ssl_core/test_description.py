"""What is said of a dataset is what is in it, wherever its images are."""

import io
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.image_folders import put
from support.sources import KINDS, store
from support.synthetic_images import arrays

from ssl_core.data.contact_sheet import COLUMNS, ROWS, choose_evenly, contact_sheet
from ssl_core.data.dataset import Source, open_source
from ssl_core.data.decoding.decode import ORIENTATION, read_image
from ssl_core.data.description import Effort, describe, looked_at
from ssl_core.data.description_record import DatasetRecord, ImageSizes
from ssl_core.data.header_scan import scan_headers
from ssl_core.errors import UserError


def picture(seed: int, width: int = 120, height: int = 90) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def described(data: Path | str, size: int | None = None, **effort) -> DatasetRecord:
    source = open_source(str(data), size)
    asked = Effort(**effort).checked()
    return describe(source, looked_at(source, asked), str(data), asked, lambda *_: None)


@pytest.fixture
def birds(tmp_path) -> Path:
    """Ten training images in two classes and three test images, of which one is a copy, one a near copy, and one cannot
    be decoded."""
    root = tmp_path / "birds"
    for name in ("train/owl", "train/tit", "test/owl", "test/tit"):
        (root / name).mkdir(parents=True)
    for i in range(7):
        picture(i).save(root / "train/owl" / f"{i}.jpg", quality=95)
    picture(7).convert("L").save(root / "train/tit/7.png")
    Image.fromarray(np.arange(10_000, dtype=np.uint16).reshape(100, 100) * 6).save(root / "train/tit/8.png")
    (root / "train/tit/9.jpg").write_bytes((root / "train/owl/0.jpg").read_bytes())
    (root / "test/tit/a.jpg").write_bytes((root / "train/owl/0.jpg").read_bytes())
    picture(3).resize((60, 45)).save(root / "test/owl/b.png")
    (root / "test/owl/c.jpg").write_bytes((root / "train/owl/1.jpg").read_bytes()[:2000])
    return root


def test_a_folder_is_what_was_put_there(birds, tmp_path):
    found = described(birds, 64)
    train, test = found.splits["train"], found.splits["test"]
    assert (train.images, train.looked_at, train.decoded, train.labeled) == (10, 10, 10, 10)
    assert train.per_class == {"owl": 7, "tit": 3} and test.per_class == {"owl": 2, "tit": 1}
    assert train.formats == {"JPEG": 8, "PNG": 2} and test.formats == {"JPEG": 2, "PNG": 1}
    assert train.modes == {"RGB, 8 bits": 8, "L, 8 bits": 1, "I;16, 16 bits": 1}
    assert train.bytes == sum(path.stat().st_size for path in (birds / "train").rglob("*.*"))
    assert train.sizes == ImageSizes(smallest=(100, 100), median=(120, 90), largest=(120, 90), smaller_than_size=0)
    assert test.sizes and test.sizes.smallest == (60, 45) and test.sizes.smaller_than_size == 1
    assert not train.unreadable and [Path(one.name).name for one in test.unreadable] == ["c.jpg"]
    exact, near = found.exact, found.near
    assert (exact.train_repeated, exact.train_relabeled, exact.test_repeated) == (1, 1, 0)
    assert (exact.test_in_train, exact.test_relabeled) == (1, 1)
    assert [Path(name).name for pair in exact.examples for name in pair] == ["a.jpg", "0.jpg"]
    assert near and (near.test_found, near.pairs, near.test_compared) == (1, 1, 1), "a copy is no near copy"
    assert [Path(name).name for pair in near.examples for name in pair] == ["b.png", "3.jpg"]
    found.write(tmp_path / "it.json")
    assert DatasetRecord.read(tmp_path / "it.json") == found


def test_effort_decides_what_is_looked_at(birds):
    some = described(birds, sample=4, near_duplicates=0)
    assert some.splits["train"].looked_at == 4 and some.splits["train"].images == 10 and some.near is None
    assert sum(some.splits["train"].per_class.values()) == 10, "classes are counted over all"
    for wrong in ({"sample": -1}, {"near_duplicates": -1}):
        with pytest.raises(UserError, match="expected 0 or more"):
            Effort(**wrong).checked()


def test_only_some_are_decoded_unless_all_are_asked_for(birds, monkeypatch):
    monkeypatch.setattr("ssl_core.data.description.DECODED_SAMPLE", 2)
    assert described(birds, near_duplicates=0).splits["train"].decoded == 2
    assert described(birds, near_duplicates=0, decode=True).splits["train"].decoded == 10
    assert described(birds, near_duplicates=5).splits["train"].decoded == 5


@pytest.mark.parametrize("kind", KINDS)
def test_of_every_source(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("TILESPIN_CACHE", str(tmp_path / "cache"))
    images = {}
    for i in range(9):
        file = io.BytesIO()
        picture(i % 8).save(file, "png")
        images[f"{i:03d}.png"] = file.getvalue()
    store(kind, tmp_path, images)
    found = described(tmp_path / kind)
    train = found.splits["train"]
    assert (train.images, train.looked_at, train.labeled, len(train.unreadable)) == (9, 9, 0, 0)
    assert sum(train.formats.values()) == 9 and train.sizes and train.sizes.median == (120, 90)
    assert train.bytes > 9000 and found.exact.train_repeated == 1 and found.near is None


def test_a_store_is_looked_at_as_far_as_was_asked_for(tmp_path, monkeypatch):
    """Of shards the first ones, so that the others are not fetched."""
    monkeypatch.setenv("TILESPIN_CACHE", str(tmp_path / "cache"))
    images = {}
    for i in range(9):
        file = io.BytesIO()
        picture(i).save(file, "png")
        images[f"{i:03d}.png"] = file.getvalue()
    store("packed", tmp_path, images)
    found = described(f"file://{tmp_path}/packed", sample=3).splits["train"]
    assert (found.images, found.looked_at, found.decoded) == (9, 3, 3)
    assert (
        len([path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.stat().st_size > 30_000]) == 1
    )


def test_images_in_memory():
    train, test = arrays(40), arrays(8, seed=1)
    source = Source("made up", "digest", 32, train, test, tuple("abcdefghij"))
    found = describe(source, source, "made up", Effort(), lambda *_: None)
    assert found.splits["train"].formats == {"decoded, in memory": 40} and found.splits["test"].images == 8
    assert found.splits["train"].bytes == train.images.nbytes and found.near and found.near.train_compared <= 40


def test_several_labels_and_none(tmp_path):
    names, labels = [f"{i}.png" for i in range(12)], [["cat"], ["cat", "dog"], []] * 4
    put(tmp_path / "pets", *names)
    rows = [json.dumps(dict(file_name=name, label=label)) for name, label in zip(names, labels)]
    (tmp_path / "pets" / "metadata.jsonl").write_text("\n".join(rows))
    found = described(tmp_path / "pets")
    assert found.multilabel and sum(split.images for split in found.splits.values()) == 12
    assert sum(split.labeled for split in found.splits.values()) == 8
    assert sum(split.per_class["cat"] for split in found.splits.values()) == 8
    assert sum(split.per_class["dog"] for split in found.splits.values()) == 4
    contact_sheet(open_source(str(tmp_path / "pets")))


def test_the_contact_sheet_has_as_many_of_one_class_as_of_another():
    labels = np.repeat([0, 1, 2, -1], [300, 9, 100, 50])
    train = arrays(len(labels))
    source = Source("x", "", 32, type(train)(train.images, labels), arrays(0), ("a", "b", "c"))
    chosen = labels[choose_evenly(source, COLUMNS * ROWS)]
    assert [int((chosen == kind).sum()) for kind in (0, 1, 2, -1)] in (
        [18, 9, 19, 18],
        [18, 9, 18, 19],
        [19, 9, 18, 18],
    )
    with Image.open(io.BytesIO(contact_sheet(source))) as sheet:
        assert sheet.size == (8 * 136, 8 * 154)
    few = Source("x", "", 32, arrays(3), arrays(0), tuple("abcdefghij"))
    with Image.open(io.BytesIO(contact_sheet(few))) as sheet:
        assert sheet.size == (3 * 136, 154)


def test_of_more_classes_than_places_some_are_shown():
    train = arrays(400, size=8, classes=200)
    source = Source("x", "", 8, train, arrays(0), tuple(map(str, range(200))))
    chosen = train.labels[choose_evenly(source, 64)]
    assert len(chosen) == len(set(chosen.tolist())) == 64 and chosen[0] == 0 and chosen[-1] == 199


@pytest.mark.parametrize("format", ["jpeg", "png", "webp", "tiff"])
def test_sizes_are_those_of_images_as_they_are_decoded(tmp_path, format):
    """Cameras store a photo as it lies, and in which way to turn it."""
    shown = []
    for orientation in range(9):  # 0 is none
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        path = tmp_path / "photos" / f"{orientation}.{format}"
        path.parent.mkdir(exist_ok=True)
        picture(orientation, 40, 20).save(path, format, **{"exif": exif} if orientation else {})
        shown.append(read_image(partial(open, path, "rb")).size)
    assert {shown[1], shown[6]} == {(40, 20), (20, 40)}
    source = open_source(str(tmp_path / "photos"), 16)
    assert scan_headers(source.train, np.arange(9)).sizes.tolist() == [list(size) for size in shown]


def test_metadata_that_cannot_be_read_turn_nothing(tmp_path):
    (tmp_path / "photos").mkdir()
    picture(0, 40, 20).save(tmp_path / "photos" / "0.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    source = open_source(str(tmp_path / "photos"), 16)
    found = scan_headers(source.train, np.arange(1))
    assert found.sizes.tolist() == [[40, 20]] and not found.unreadable
