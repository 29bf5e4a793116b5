"""`tilespin embed`: the encoder's own numbers, in the dataset's order, in files that other libraries read."""

import csv
import json
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from safetensors import safe_open
from support.command import ROOT, forked
from support.image_folders import put

import tilespin
from jobs.commands import embed
from jobs.config.runtime import RuntimeConfig
from jobs.embedding.parts import compute_part, load_encoder
from jobs.embedding.plan import EmbeddingConfig, make_plan
from jobs.embedding.run import MANIFEST
from ssl_core.data.dataset import open_source
from ssl_core.errors import UserError

RANDOM = "timm:test_resnet=random"  # timm's smallest, of five stages
VIT = "timm:test_vit=random"  # 4 blocks, patches of 16 px
IN_ORDER = ("train/a/1.png", "train/a/2.png", "train/b/3.png", "unlabeled/4.png", "test/a/5.png", "test/b/6.png")


@pytest.fixture
def splits(tmp_path) -> Path:
    """Two classes, with a test split and an unlabeled image."""
    put(tmp_path / "data", *IN_ORDER)
    return tmp_path / "data"


def run(encoder: str, data: Path, output: Path, *options) -> Path:
    embed.main([encoder, "--data", str(data), "--output", str(output), *map(str, options)])
    return output


def features_in(file: Path) -> np.ndarray:
    table = parquet.read_table(file)
    return table["features"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)


def pixels(data: Path) -> torch.Tensor:
    """The images of `splits`, training images first, [n, 3, 16, 16], read by Pillow; they have that size already."""
    images = [np.array(Image.open(data / name).convert("RGB")) for name in IN_ORDER]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


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


def test_the_guide_reads_a_table(splits, tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/guide.md").read_text(), re.DOTALL)
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


@pytest.mark.slow
@pytest.mark.parametrize(("number", "end"), [(signal.SIGKILL, ".parquet"), (signal.SIGINT, ".npy")])
def test_what_was_stopped_continues_to_the_same_bytes(shapes, tmp_path, capsys, number, end):
    """A signal after two of thirty parts: these stay, the same command goes on, and nothing else is left."""
    options = "--shard", 8, "--batch", 8, "--size", 32
    place, whole = tmp_path / "stopped", tmp_path / "whole"
    place.mkdir()
    whole.mkdir()
    run(RANDOM, shapes, whole / f"f{end}", *options)
    output = place / f"f{end}"
    with forked("embed", RANDOM, "--data", shapes, "--output", output, *options) as child:
        while child.poll() is None:
            if len(list(place.glob("*.parts/part-*.json"))) >= 2:
                child.send_signal(number)
                break
            time.sleep(0.001)
        done = child.wait()
    assert done.returncode in (-number, 128 + number) and not output.exists()
    if number == signal.SIGINT:
        assert "the same command continues where it stopped" in done.stderr
    kept = len(list(place.glob("*.parts/part-*.json")))
    assert 2 <= kept < 30
    capsys.readouterr()
    run(RANDOM, shapes, output, *options)
    assert f"{8 * kept} of 240 images are there already" in capsys.readouterr().err
    assert contents(place) == contents(whole) and not (place / f"f{end}.parts").exists()


@pytest.mark.ray
def test_two_workers_write_the_same_bytes(shapes, tmp_path):
    """As one process, whatever the number of threads of this."""
    options = "--shard", 50, "--batch", 16, "--size", 32, "--stage", 3
    for name, more in {"here": (), "ray": ("--workers", 2)}.items():
        (tmp_path / name).mkdir()
        run(RANDOM, shapes, tmp_path / name / "f.safetensors", *options, *more)
    assert contents(tmp_path / "here") == contents(tmp_path / "ray")


def test_finished_file_stays(splits, tmp_path, capsys):
    file = run(RANDOM, splits, tmp_path / "f.safetensors", "--size", 16)
    before = file.stat().st_mtime_ns
    run(RANDOM, splits, file, "--size", 16)
    assert "there already" in capsys.readouterr().out and file.stat().st_mtime_ns == before


def test_python_writes_what_the_command_writes(splits, tmp_path, capsys):
    file = tilespin.embed(RANDOM, splits, output=tmp_path / "f.npy", size=16, pool="2x2")
    assert file == tmp_path / "f.npy" and capsys.readouterr() == ("", "")
    run(RANDOM, splits, tmp_path / "g.npy", "--size", 16, "--pool", "2x2")
    assert file.read_bytes() == (tmp_path / "g.npy").read_bytes()
    with pytest.raises(UserError, match="did you mean stage"):
        tilespin.embed(RANDOM, splits, output=file, stagge=2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--output", "f.csv"], r"f\.csv: expected a name that ends with \.parquet, \.npy, \.safetensors"),
        (["--stage", "9"], "--stage 9: test_resnet has the stages 1 to 5"),
        (["--stage", "cls"], "test_resnet has no class token"),
        (["--pool", "max"], "--pool"),
        (["--batch", "0"], "--batch is 0, expected at least 1"),
        (["--workers", "-1"], "--workers is -1"),
        (["--output", "OTHER.parquet"], "OTHER.parquet is of stage 2, not 5: remove it"),
        (["--output", "OTHER.parquet", "--stage", "2", "--size", "32"], "OTHER.parquet is of size 16, not 32"),
        (["--output", "THEIRS.npy"], "THEIRS.npy is there already and is not of this command"),
        (["--output", "THEIRS.safetensors"], "THEIRS.safetensors is there already and is not of this command"),
        (["--output", "BEGUN.npy"], r"BEGUN\.npy\.parts is of stage 2, not 5: remove it"),
        (["--output", "FULL.npy"], r"FULL\.npy\.parts holds something else"),
        (["--output", "ALONE.npy"], r"ALONE\.npy\.csv is there already, without ALONE\.npy"),
        (["--output", "folder.npy"], "is a folder"),
        (["--output", "THEIRS.npy/f.npy"], "cannot be written"),
    ],
)
def test_impossible_wishes_are_refused(splits, tmp_path, options, words):
    for name in ("THEIRS.npy", "THEIRS.safetensors", "ALONE.npy.csv"):
        (tmp_path / name).write_text("somebody's file")
    for name in ("folder.npy", "FULL.npy.parts", "BEGUN.npy.parts"):
        (tmp_path / name).mkdir()
    (tmp_path / "FULL.npy.parts" / "notes.txt").write_text("somebody's")
    run(RANDOM, splits, tmp_path / "OTHER.parquet", "--stage", 2, "--size", 16)
    record = json.loads(parquet.read_schema(tmp_path / "OTHER.parquet").metadata[b"tilespin"])
    (tmp_path / "BEGUN.npy.parts" / "embedding.json").write_text(json.dumps(record))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    options = [str(tmp_path / word) if options[i - 1] == "--output" else word for i, word in enumerate(options)]
    with pytest.raises(UserError, match=words):
        run(RANDOM, splits, tmp_path / "f.npy", "--size", 16, *options)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_split_that_is_not_there(shapes, tmp_path):
    with pytest.raises(UserError, match=r"--split unlabeled: .* has no such images; there is all, train, test"):
        run(RANDOM, shapes, tmp_path / "f.npy", "--split", "unlabeled")


def test_other_weights_are_another_encoder(splits, tmp_path):
    """The same name, of a file that has changed since."""
    from safetensors.torch import save_file

    network = load_encoder(RANDOM).network
    weights = dict(network.state_dict())
    save_file({name: one.contiguous() for name, one in weights.items()}, tmp_path / "w.safetensors")
    spec = f"timm:test_resnet={tmp_path}/w.safetensors"
    run(spec, splits, tmp_path / "f.npy", "--size", 16)
    name = next(name for name, one in weights.items() if one.is_floating_point())
    weights[name] = weights[name] + 1
    save_file({name: one.contiguous() for name, one in weights.items()}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="is of another encoder"):
        run(spec, splits, tmp_path / "f.npy", "--size", 16)


@pytest.mark.parametrize("end", [".npy", ".parquet", ".safetensors"])
def test_in_a_store(splits, tmp_path, end, capsys):
    """Parts, file and what lies beside it; nothing else stays. The same command again reads what is there."""
    import fsspec

    for output in (f"memory://bucket/f{end}", tmp_path / f"f{end}", f"memory://bucket/f{end}"):
        embed.main([RANDOM, "--data", str(splits), "--output", str(output), "--size", "16", "--shard", "2"])
    assert capsys.readouterr().out.count("there already") == 1
    store = fsspec.filesystem("memory")
    found = {path.rsplit("/", 1)[1]: store.cat_file(path) for path in store.find("/bucket")}
    store.rm("/bucket", recursive=True)
    assert found == contents(tmp_path)


def test_parts_that_are_all_there_are_merged_without_ray(splits, tmp_path):
    """As after a kill that came when the last part was written; a part that was cut off is named."""
    run(RANDOM, splits, tmp_path / "whole.npy", "--size", 16, "--shard", 4)
    config, runtime = EmbeddingConfig(size=16, shard=4), RuntimeConfig(decode_threads=1)
    plan = make_plan(RANDOM, str(splits), str(tmp_path / "f.npy"), config, runtime)
    plan.embedding.record.write(plan.folder / MANIFEST)
    for number in range(2):
        compute_part(plan.embedding, number)
    part = plan.folder / "part-000001.npy"
    data = part.read_bytes()
    part.write_bytes(data[:-4])
    with pytest.raises(UserError, match=r"part-000001\.npy is damaged"):
        run(RANDOM, splits, tmp_path / "f.npy", "--size", 16, "--shard", 4, "--workers", 2)
    part.write_bytes(data)
    run(RANDOM, splits, tmp_path / "f.npy", "--size", 16, "--shard", 4, "--workers", 2)
    assert (tmp_path / "f.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
    assert not plan.folder.exists()
