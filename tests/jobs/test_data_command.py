"""`tilespin data` as a user runs it: what is printed, what is written, and what is refused."""

from shutil import copytree

import pytest
from PIL import Image

from jobs.commands.data import main
from ssl_core.data.description_record import DatasetRecord
from ssl_core.errors import UserError


def test_what_is_printed_and_written(shapes, tmp_path, capsys):
    main([str(shapes), "--json", str(tmp_path / "it.json"), "--contact-sheet", str(tmp_path / "sheet.png")])
    said, progress = capsys.readouterr()
    lines = said.splitlines()
    assert lines[0].endswith("chosen by their paths") and "192 training and 48 test images of 96 px" in lines[0]
    assert "classes: 48 training images in each" in lines
    for line in (
        "train: 32 x 32 pixels; 192 with a side below 96 would be enlarged",
        "train: 0 of 192 images cannot be decoded (all were tried)",
        "copies of training images, byte for byte: 0 of 48 test images",
    ):
        assert line in lines
    assert "headers of train images: 192" in progress
    record = DatasetRecord.read(tmp_path / "it.json")
    assert record.splits["train"].formats == {"PNG": 192} and record.data == str(shapes)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (1088, 1232)


def test_broken_images_are_named_and_more_are_counted(photos, tmp_path, capsys):
    copytree(photos, tmp_path / "photos")
    for i in range(4):
        (tmp_path / "photos" / f"more {i}.jpg").write_bytes(b"")
    main([str(tmp_path / "photos")])
    said = capsys.readouterr().out
    assert (
        "train: 7 of 27 images cannot be decoded (all were tried)" in said and "and 2 more, which --json names" in said
    )
    assert "empty.jpg" in said and "classes" not in said


def test_many_classes_take_few_lines(tmp_path, capsys):
    for i in range(30):
        (tmp_path / "d" / f"class{i:02d}").mkdir(parents=True)
        for j in range(2 + i):
            Image.new("L", (8, 8), 8 * i + j).save(tmp_path / "d" / f"class{i:02d}" / f"{j}.png")
    main([str(tmp_path / "d")])
    said = capsys.readouterr().out
    assert "… 11 more …" in said and said.count("\n class") == 20
    assert "classes: 1 (class00) to 24 (class29) training images, 24 times as many" in said


def test_what_cannot_be_opened_or_written_is_refused(shapes, tmp_path):
    with pytest.raises(UserError, match=r"^/no/such/folder: no such folder"):
        main(["/no/such/folder"])
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--json .*/file/x\.json cannot be written: File exists"):
        main([str(shapes), "--json", str(tmp_path / "file" / "x.json")])
