"""`tilespin embed`: the encoder's own numbers, in the dataset's order, in files that other libraries read."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from safetensors import safe_open
from support.command import ROOT
from support.embedding import IN_ORDER, RANDOM, features_in, run
from support.image_folders import put

import tilespin
from jobs.embedding.parts import load_encoder
from ssl_core.data.dataset import open_source
from ssl_core.errors import UserError

VIT = "timm:test_vit=random"  # patches of 16 px, a class token


@pytest.fixture
def splits(tmp_path) -> Path:
    """Two classes, with a test split and an unlabeled image."""
    put(tmp_path / "data", *IN_ORDER)
    return tmp_path / "data"


def pixels(data: Path) -> torch.Tensor:
    """The images of `splits`, training images first, [n, 3, 16, 16], read by Pillow; they have that size already."""
    images = [np.array(Image.open(data / name).convert("RGB")) for name in IN_ORDER]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


@torch.no_grad()
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], lambda maps: maps[4].mean((2, 3))),
        (["--stage", 3], lambda maps: maps[2].mean((2, 3))),
        (["--stage", 2, "--pool", "map"], lambda maps: maps[1].flatten(1)),
        (
            ["--stage", 2, "--pool", "2x2"],
            lambda maps: maps[1].unflatten(2, (2, -1)).unflatten(4, (2, -1)).mean((3, 5)).flatten(1),
        ),
    ],
)
def test_features_are_those_of_a_forward_pass(splits, tmp_path, options, expected):
    """In torch alone: the encoder of timm itself, ImageNet's statistics, and means over places."""
    file = run(RANDOM, splits, tmp_path / "f.parquet", "--size", 16, "--batch", 4, *options)
    x = (pixels(splits).float() / 255 - torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1)) / torch.tensor(
        (0.229, 0.224, 0.225)
    ).view(3, 1, 1)
    wanted = expected(load_encoder(RANDOM).network(x)).numpy()
    np.testing.assert_allclose(features_in(file), wanted, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_class_token_of_a_vision_transformer(splits, tmp_path):
    """As timm computes it: the first token after the last layer norm, of a model built for 64 px."""
    import timm

    file = run(VIT, splits, tmp_path / "f.parquet", "--size", 16, "--stage", "cls", "--normalization", "image")
    model = timm.create_model("test_vit", num_classes=0, dynamic_img_size=True).eval()
    model.load_state_dict(load_encoder(VIT).network.model.state_dict())
    x = pixels(splits).float()
    mean, std = x.mean((2, 3), keepdim=True), x.std((2, 3), keepdim=True, correction=0)
    wanted = model.forward_features((x - mean) / std)[:, 0].numpy()
    np.testing.assert_allclose(features_in(file), wanted, rtol=1e-4, atol=1e-5)
    last = run(VIT, splits, tmp_path / "last.parquet", "--size", 16, "--normalization", "image")
    tokens = model.forward_features((x - mean) / std)[:, 1:].mean(1).numpy()
    np.testing.assert_allclose(features_in(last), tokens, rtol=1e-4, atol=1e-5)


def test_each_format_holds_the_same(splits, tmp_path):
    table, array, tensors = (run(RANDOM, splits, tmp_path / f"f{end}") for end in (".parquet", ".npy", ".safetensors"))
    rows = parquet.read_table(table).drop_columns("features").to_pylist()
    assert [row["id"] for row in rows] == [0, 1, 2, 3, 4, 5]
    assert [row["path"] for row in rows] == [str(splits / name) for name in IN_ORDER]
    assert [row["split"] for row in rows] == ["train", "train", "train", "unlabeled", "test", "test"]
    assert [row["label"] for row in rows] == [0, 0, 1, -1, 0, 1]
    assert [row["label_name"] for row in rows] == ["a", "a", "b", None, "a", "b"]
    features = features_in(table)
    assert features.dtype == np.float32 and len(np.unique(features, axis=0)) == 6
    np.testing.assert_array_equal(np.load(array), features)
    with safe_open(tensors, "np") as file:
        np.testing.assert_array_equal(file.get_tensor("features"), features)
        assert file.get_tensor("ids").tolist() == [0, 1, 2, 3, 4, 5]
        assert file.get_tensor("labels").tolist() == [0, 0, 1, -1, 0, 1]
        said = json.loads(file.metadata()["tilespin"])
    as_text = [{name: "" if of is None else str(of) for name, of in row.items()} for row in rows]
    for name in ("f.npy.csv", "f.safetensors.csv"):
        assert list(csv.DictReader((tmp_path / name).open())) == as_text
    assert said == json.loads((tmp_path / "f.npy.json").read_text())
    assert said == json.loads(parquet.read_schema(table).metadata[b"tilespin"])
    assert (said["stage"], said["pool"], said["size"], said["classes"]) == (5, "mean", 96, ["a", "b"])
    assert said["encoder_digest"] == load_encoder(RANDOM).digest
    assert said["data_digest"] == open_source(str(splits)).digest


def test_the_docs_read_a_table(splits, tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text(), re.DOTALL)
    (block,) = [block for block in blocks if "FEATURES.parquet" in block]
    monkeypatch.chdir(tmp_path)
    run(RANDOM, splits, Path("FEATURES.parquet"), "--size", 16)
    found: dict = {}
    exec(block, found)
    np.testing.assert_array_equal(found["features"], features_in(tmp_path / "FEATURES.parquet"))
    assert found["labels"].tolist() == [0, 0, 1, -1, 0, 1] and found["names"][0] == str(splits / IN_ORDER[0])


def test_splits(splits, tmp_path):
    """Numbers are those of the whole dataset."""
    options = "--size", 16
    for split, ids in {"train": [0, 1, 2], "test": [4, 5], "unlabeled": [3], "all": [0, 1, 2, 3, 4, 5]}.items():
        table = parquet.read_table(run(RANDOM, splits, tmp_path / f"{split}.parquet", "--split", split, *options))
        assert table["id"].to_pylist() == ids


def test_several_labels_an_image(tmp_path):
    put(tmp_path / "data", "1.png", "2.png", "3.png")
    rows = [dict(file_name="1.png", label=["cat", "dog"]), dict(file_name="3.png", label=["dog"])]
    (tmp_path / "data" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = open_source(str(tmp_path / "data"), 16)
    names = {Path(source.train.name(i)).name: i for i in range(3)}
    table = parquet.read_table(run(RANDOM, tmp_path / "data", tmp_path / "f.parquet", "--size", 16)).to_pylist()
    found = {Path(row["path"]).name: (row["id"], row["label"], row["label_name"], row["split"]) for row in table}
    assert found == {
        "1.png": (names["1.png"], [0, 1], ["cat", "dog"], "train"),
        "2.png": (names["2.png"], [], [], "unlabeled"),
        "3.png": (names["3.png"], [1], ["dog"], "train"),
    }
    with safe_open(run(RANDOM, tmp_path / "data", tmp_path / "f.safetensors", "--size", 16), "np") as file:
        labels = file.get_tensor("labels")
    assert labels.dtype == bool and [labels[names[f"{i}.png"]].tolist() for i in (1, 2, 3)] == [
        [True, True],
        [False, False],
        [False, True],
    ]
    cells = list(csv.DictReader((tmp_path / "f.safetensors.csv").open()))
    assert json.loads(cells[names["1.png"]]["label_name"]) == ["cat", "dog"]


def test_images_that_cannot_be_decoded_are_left_out_and_named(photos, tmp_path, capsys):
    """And no part of what surrounds them moves: each row has the features of its own image."""
    table = parquet.read_table(run(RANDOM, photos, tmp_path / "f.parquet", "--shard", 6, "--batch", 3, "--size", 16))
    said = capsys.readouterr().out
    assert "20 images" in said and "left out: 3 that cannot be decoded" in said and "truncated.jpg" in said
    assert set(table["split"].to_pylist()) == {"train"} and set(table["label"].to_pylist()) == {-1}
    source = open_source(str(photos), 16)
    assert [source.train.name(i) for i in table["id"].to_pylist()] == table["path"].to_pylist()
    whole = tmp_path / "whole"
    shutil.copytree(photos, whole)
    for name in ("truncated.jpg", "empty.jpg", "text.png"):
        (whole / name).unlink()
    alone = run(RANDOM, whole, tmp_path / "alone.parquet", "--batch", 1, "--size", 16)
    assert [Path(path).name for path in table["path"].to_pylist()] == [path.name for path in sorted(whole.iterdir())]
    np.testing.assert_allclose(features_in(tmp_path / "f.parquet"), features_in(alone), rtol=1e-4, atol=1e-5)


def test_python_writes_what_the_command_writes(splits, tmp_path, capsys):
    file = tilespin.embed(RANDOM, splits, output=tmp_path / "f.npy", size=16, pool="2x2")
    assert file == tmp_path / "f.npy" and capsys.readouterr() == ("", "")
    run(RANDOM, splits, tmp_path / "g.npy", "--size", 16, "--pool", "2x2")
    assert file.read_bytes() == (tmp_path / "g.npy").read_bytes()
    with pytest.raises(UserError, match="did you mean stage"):
        tilespin.embed(RANDOM, splits, output=file, stagge=2)
