"""Encoders from elsewhere, evaluated side by side with a study's own, by one command."""

import csv
import json
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file
from torch import nn

import jobs.commands.compare
import jobs.commands.evaluate
import jobs.commands.pretrain
import ssl_core.encoders.build as encoders
from jobs.evaluation.encoders import PIXELS, RANDOM, EvaluatedEncoder, with_baselines
from jobs.evaluation.external import describe_loading, list_encoders, load_external
from jobs.study.folder import Study
from ssl_core.errors import UserError

pytestmark = pytest.mark.slow

QUICK = ["--protocols", "knn", "--num-labels", "60", "--wandb", "off", "--decode-threads", "1"]


@pytest.fixture(scope="module")
def files(tmp_path_factory, shapes) -> Path:
    """A timm checkpoint of a training, a torchvision state dict, and a run of another study."""
    folder = tmp_path_factory.mktemp("files")
    torch.manual_seed(0)
    state = timm.create_model("test_resnet").state_dict()
    torch.save({"epoch": 3, "state_dict": {f"module.{name}": t for name, t in state.items()}}, folder / "timm.pth")
    torch.save(torchvision.models.squeezenet1_1().state_dict(), folder / "tv.pt")
    arguments = ["rotnet", "--data", shapes, "--size", 32, "--steps", 2, "--batch", 8, "--wandb", "off"]
    jobs.commands.pretrain.main([*map(str, arguments), "--storage", str(folder), "--name", "other"])
    return folder


@pytest.fixture(scope="module")
def study(files, shapes) -> Study:
    (run,) = (files / "other").glob("pretrain/rotnet-*")
    given = [f"timm:test_resnet={files}/timm.pth", f"torchvision:squeezenet1_1={files}/tv.pt", str(run)]
    told = [word for one in given for word in ("--encoder", one)]
    jobs.commands.evaluate.main([str(files / "new"), "--data", str(shapes), "--size", "32", *told, *QUICK])
    return Study(files / "new")


def results(study: Study) -> dict[str, dict]:
    with open(study.results) as file:
        return {row["task"]: row for row in csv.DictReader(file) if row["metric"] == "top1"}


def test_three_kinds_side_by_side(study):
    """Each between raw pixels and its own architecture at random, and with its gain over that."""
    rows = results(study)
    labels = {"timm:test_resnet=timm.pth", "torchvision:squeezenet1_1=tv.pt"}
    (ours,) = (name for name in rows if name.startswith("rotnet-"))
    assert labels < set(rows) and PIXELS in rows
    assert len(rows) == 1 + 2 * 3 and len([name for name in rows if name.startswith(RANDOM)]) == 3
    assert {rows[name]["encoder"] for name in (*labels, ours)} == {
        "test_resnet",
        "torchvision:squeezenet1_1",
        "convnet",
    }
    with open(study.results) as file:
        gains = [row["task"] for row in csv.DictReader(file) if row["metric"] == "top1/gain-over-random-init"]
    assert set(gains) == labels | {ours}
    assert "trained elsewhere" in study.report.read_text()


def test_they_are_kept_and_found_again(study, files, capsys):
    """With the files gone, nothing is computed again, and the comparison is the same."""
    (files / "timm.pth").rename(files / "gone.pth")
    before = {path: path.stat().st_mtime_ns for path in study.root.glob("evaluate/*/*.json")}
    table = study.results.read_text()
    jobs.commands.evaluate.main([str(study.root), *QUICK])
    jobs.commands.compare.main([str(study.root), "--wandb", "off"])
    assert {path: path.stat().st_mtime_ns for path in study.root.glob("evaluate/*/*.json")} == before
    assert study.results.read_text() == table
    assert capsys.readouterr().out.count("timm:test_resnet=timm.pth") == 2
    kept = json.loads(study.file.read_text())["encoders"]
    assert [Path(study.external(one["external"]) / "encoder.safetensors").exists() for one in kept] == [True] * 3


def test_a_cell_is_named_by_weights_and_statistics(study, files):
    """The same weights under other statistics are another encoder, and the encoder sees its own."""
    (one,) = (j for j in list_encoders(study) if j.task.startswith("timm:"))
    folder = study.external(one.external)
    described, before = json.loads((folder / "encoder.json").read_text()), one.digest(study)
    assert described["mean"] == [127.5] * 3 and encoders.digest(one.load(study).encoder) == described["digest"]
    loaded = one.load(study)
    assert isinstance(loaded, encoders.RestandardizedEncoder)
    mean, std = one.source.mean, one.source.std
    black = -torch.tensor(mean) / torch.tensor(std)  # as the features' code hands it over
    seen = black.view(1, 3, 1, 1) * loaded.scale + loaded.shift
    assert torch.allclose(seen, torch.full_like(seen, -1.0), atol=1e-5)
    (folder / "encoder.json").write_text(json.dumps({**described, "mean": [0.0] * 3}))
    assert one.digest(study) != before
    (folder / "encoder.json").write_text(json.dumps(described))
    assert one.digest(study) == before
    file = load_file(folder / "encoder.safetensors")
    assert torch.equal(file["conv1.0.weight"], torch.load(files / "gone.pth")["state_dict"]["module.conv1.0.weight"])


def test_floors_have_the_stem_of_what_they_stand_under(shapes):
    """At 32 px an ImageNet stem is kept for weights that were trained with it, and so is the floor's."""
    arrival = load_external("timm:resnet18=random", str(shapes), 32)
    assert arrival.evaluated.task == RANDOM and arrival.evaluated.stem == 64
    floors = with_baselines([arrival.evaluated])
    assert floors == [EvaluatedEncoder(PIXELS, PIXELS, None, str(shapes), 32, 0, "dataset"), arrival.evaluated]
    assert isinstance(arrival.evaluated.load(Study("none"))["maxpool"], nn.MaxPool2d)
    assert load_external("timm:resnet18=random", str(shapes), 64).evaluated.stem is None


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--encoder", "timm:test_resnet=random"], "no study here"),
        (["--data", "cifar10"], "no study here"),
        (["--data", "{shapes}", "--encoder", "test_resnet"], "expected timm:NAME"),
        (["--data", "/no/such", "--encoder", "timm:test_resnet=random"], "no such folder"),
        (["--data", "{shapes}", "--encoder", "timm:vit_small_patch14_dinov2=random"], "patches of 14 px"),
    ],
)
def test_refused_before_anything_is_made(words, reason, shapes, tmp_path):
    words = [word.format(shapes=shapes) for word in words]
    with pytest.raises(UserError, match=reason):
        jobs.commands.evaluate.main([str(tmp_path / "new"), *words, *QUICK])
    assert not (tmp_path / "new").exists()


def test_two_networks_of_one_file_stand_side_by_side(shapes, tmp_path):
    states = {}
    for seed, key in enumerate(("student", "teacher")):
        states[key] = {f"backbone.{n}": t for n, t in encoders.build("test_resnet", 64, seed).state_dict().items()}
    torch.save(states, tmp_path / "dino.pth")
    told = f"timm:test_resnet={tmp_path}/dino.pth"
    first, second, third = (load_external(told + end, str(shapes), 32) for end in ("", "#student", "#teacher"))
    assert [one.evaluated.task for one in (first, second)] == [f"timm:test_resnet=dino.pth#{n}" for n in states][::-1]
    assert first.evaluated == third.evaluated and first.evaluated.external != second.evaluated.external
    assert describe_loading(first).endswith("; it is teacher of the file, where dino.pth#student would fit as well")


def test_data_without_an_encoder_is_refused(study, shapes):
    with pytest.raises(UserError, match="what encoders given by --encoder are evaluated on"):
        jobs.commands.evaluate.main([str(study.root), "--data", str(shapes), *QUICK])
