"""What limits the numbers of a dirty dataset is said before anything runs, with the table, and in the report."""

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from support.command import ROOT, environment

from jobs.commands.compare import main as compare
from jobs.commands.evaluate import main as evaluate
from jobs.report.caveats import _name_in_dataset
from jobs.study.folder import JobsFailed
from ssl_core.data.dataset import open_source
from ssl_core.storage.study_record import StudyRecord

pytestmark = pytest.mark.slow

PLAIN = ["--size", "16", "--decode-threads", "1", "--wandb", "off"]
COPIES = "2 of 5 test images: copies of training images, byte for byte, such as test/<b>/0.png of train/<b>/1.png, "


def picture(rng: np.random.Generator) -> Image.Image:
    return Image.fromarray(rng.integers(0, 256, (16, 16, 3)).astype(np.uint8))


@pytest.fixture
def dirty(tmp_path) -> Path:
    """Three classes of six training images; of five test images two are copies, one of them of another class, one is a
    darker copy, and one cannot be decoded, which leaves a class without any, as another is from the beginning."""
    root, rng = tmp_path / "dirty", np.random.default_rng(0)
    for kind, name in enumerate(("<b>", "[red]", "$x_{")):
        for part, count in (("train", 6), ("test", (2, 1, 0)[kind])):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                picture(rng).save(root / part / name / f"{i}.png")
    (root / "test/<b>/0.png").write_bytes((root / "train/<b>/1.png").read_bytes())
    (root / "test/<b>/1.png").write_bytes((root / "train/$x_{/1.png").read_bytes())
    (root / "test/[red]/0.png").write_bytes(b"no image")
    picture(rng).save(root / "test/<b>/2.png")
    with Image.open(root / "train/[red]/4.png") as image:
        image.point(lambda value: value * 0.9).save(root / "test/<b>/3.png")
    return root


def test_it_is_said_and_stays_said(dirty, tmp_path, capsys):
    """And one encoder that fails takes no table from the others."""
    weights = timm.create_model("resnet18", num_classes=0).state_dict()
    weights["conv1.weight"] = torch.full_like(weights["conv1.weight"], torch.nan)
    save_file(weights, tmp_path / "nan.safetensors")
    file = f"timm:resnet18={tmp_path / 'nan.safetensors'}"
    study = tmp_path / "study"
    options = ["--encoder", file, "--protocols", "knn", "collapse", "--data", str(dirty), *PLAIN]
    with pytest.raises(JobsFailed, match="3 of 9 jobs failed"):
        evaluate([str(study), *options])
    told = capsys.readouterr()
    assert told.err.index(f"dirty: {COPIES}") < told.err.index("evaluated"), "before anything runs"
    assert "dirty: Without a test image: $x_{ (1 of 3 classes)" in told.err and "are not finite" in told.err
    lines = [
        f"{COPIES}test/<b>/1.png of train/$x_{{/1.png. What they score may be remembered and not recognized. 1 of 2: "
        "with another label there.",
        "1 of 5 test images: near copies of training images (at most 4 of 64 bits of a perceptual hash differ, and "
        "colors correlate by 0.9 or more), such as test/<b>/3.png of train/[red]/4.png.",
        "Without a test image: $x_{, [red] (2 of 3 classes). All metrics are over the other 1.",
        "1 of 5 test images could not be decoded and are left out of all numbers.",
        "knn: fewer training images than 20 and 200 neighbors: all 15 count.",
    ]
    page = (study / "report.html").read_text()
    for line in lines:
        assert line in told.out
        assert line.replace("<", "&lt;").replace(">", "&gt;") in page
    assert "over 1 of 3 classes" in told.out and "over 1 of 3 classes" in page
    assert json.loads((study / "study.json").read_text())["caveats"] == lines
    with open(study / "results.csv") as table:
        found = {(line["task"], line["protocol"]) for line in csv.DictReader(table)}
    assert found == {(task, protocol) for task in ("raw-pixels", "random-init") for protocol in ("knn", "collapse")}
    assert any(line.startswith(" timm:resnet18=nan") and line.rstrip().endswith("-") for line in told.out.splitlines())

    compare([str(study), "--wandb", "off"])
    assert capsys.readouterr().out == told.out, "without looking at the images again"


def test_a_report_without_a_new_caveat_is_written_anew(shapes, tmp_path, capsys):
    """A study that was evaluated before copies were looked for: the numbers are the same, what limits them is not."""
    study, data = tmp_path / "study", tmp_path / "shapes"
    for path in shapes.glob("*/00?.png"):
        (data / path.parent.name).mkdir(parents=True, exist_ok=True)
        (data / path.parent.name / path.name).write_bytes(path.read_bytes())
    options = ["--encoder", "timm:resnet18=random", "--protocols", "knn", "--data", str(data), *PLAIN]
    evaluate([str(study), *options])
    before, numbers = (study / "report.html").read_text(), (study / "results.csv").read_text()
    record = StudyRecord.read(study / "study.json")
    source = open_source(str(data), 16)
    (kept,) = record.copies.values()
    assert kept.digest == source.digest and kept.compared == kept.test_images == len(source.test) == 8
    assert "copies of" not in before and kept.found == 0

    kept = replace(kept, found=1, pairs=(("one.png", "other.png"),))
    replace(record, copies={str(data): kept}).write(study / "study.json")
    compare([str(study), "--wandb", "off"])
    assert "1 of 8 test images: copies" in capsys.readouterr().out
    assert "1 of 8 test images: copies" in (study / "report.html").read_text()
    assert (study / "results.csv").read_text() == numbers


def test_results_are_written_before_they_are_printed(shapes, tmp_path):
    """Whoever reads the table may leave at its first line: it goes into a pipe that nobody reads."""
    study = tmp_path / "study"
    options = ["--encoder", "timm:resnet18=random", "--protocols", "knn", "--data", str(shapes), *PLAIN]
    command = [sys.executable, "-m", "jobs.cli", "evaluate", str(study), *options]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment() | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        process.stdout.close()
    assert (study / "report.html").exists() and (study / "results.csv").exists()


def test_images_are_named_from_their_dataset_on():
    """Also where a column of its table is asked for."""
    for data in ("/a/birds", "/a/birds#kind"):
        assert _name_in_dataset(data, "/a/birds/owl/1.png") == "owl/1.png"
