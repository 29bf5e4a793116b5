"""What people read before anything runs: the dataset in one line, and that a large folder is still being listed."""

import threading

import numpy as np
from PIL import Image
from support.synthetic_images import gradients

from ssl_core.data import listing
from ssl_core.data.dataset import Arrays, Source, open_source
from ssl_core.data.summary import summary


def test_the_line_of_a_folder_says_all_that_was_understood(tmp_path):
    root = tmp_path / "birds"
    names = [f"{kind}/{i}.png" for kind in "abcdef" for i in range(5)] + ["cover.png"]
    for image, name in zip(gradients(len(names), 16).numpy(), names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / name)
    (root / "notes.csv").write_text("a,b")
    (root / ".git").mkdir()
    open_source.cache_clear()
    assert summary(open_source(str(root))) == (
        "birds: 24 training and 6 test images of 96 px, 6 classes (a 5, b 5, c 5, d 5 and 2 more); "
        "left out: cover.png beside the class folders; "
        "6 of 30 images are held out as test data, chosen by their paths; "
        "1 other file (.csv) left out; not looked into: .git"
    )


def test_the_line_of_images_without_labels():
    split = Arrays(np.zeros((3, 8, 8, 3), np.uint8), np.full(3, -1))
    assert summary(Source("x", "", 8, split, split)) == "x: 3 training and 3 test images of 8 px, without labels"


def test_what_takes_long_is_said_again_and_again(monkeypatch, capsys):
    monkeypatch.setattr(listing, "QUIET_S", 0.01)
    twice = threading.Semaphore(0)

    def message() -> str:
        twice.release()
        return "listing FOLDER: 7 images so far"

    with listing.saying_if_slow(message):
        assert twice.acquire(timeout=60) and twice.acquire(timeout=60)
    assert "listing FOLDER: 7 images so far\n" in capsys.readouterr().err


def test_what_is_quick_is_not_worth_a_line(capsys):
    with listing.saying_if_slow(lambda: "never"):
        pass
    assert capsys.readouterr().err == ""
