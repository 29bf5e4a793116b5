"""`tilespin pack` into a folder and into a store, of images with one label, several or none."""

import json
import tarfile

import fsspec
import numpy as np
import pytest
from PIL import Image
from support import dataset_layouts as layouts
from support.dataset_layouts import Picture
from support.s3_server import s3_server

from jobs.commands import pack
from ssl_core.data.dataset import Source, open_source
from ssl_core.errors import UserError
from ssl_core.storage.object_store import is_url

OPTIONS = ["--lossless", "--shard-mb", "1"]


@pytest.fixture(scope="module")
def store():
    """s3://bucket of an S3 server."""
    with s3_server() as settings, pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        fsspec.filesystem("s3").mkdir("bucket")
        yield "s3://bucket"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TILESPIN_CACHE", str(tmp_path / "cache"))


@pytest.fixture(params=["disk", pytest.param("store", marks=pytest.mark.network)])
def place(request, tmp_path) -> str:
    """Where to pack: a folder, or a URL that no other test has."""
    return (
        str(tmp_path / "packed") if request.param == "disk" else f"{request.getfixturevalue('store')}/{tmp_path.name}"
    )


def noise(labels: list[tuple[str, ...]]) -> list[Picture]:
    """An image of random pixels with each of these labels; every fourth is a test image, if it has one."""
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 16, 16, 3), np.uint8)
    roles = ["unlabeled" if not label else "train" if i % 4 else "test" for i, label in enumerate(labels)]
    return [Picture(*one) for one in zip(images, labels, roles)]


def contents(source: Source, packed: Source) -> list[list[tuple[bytes, list[str]]]]:
    """By split of `source`, the pixels and classes of those of its images that are in `packed`, in the order there."""
    found = []
    for part in ("train", "test"):
        split, rows = getattr(source, part), range(len(getattr(source, part)))
        if source is not packed:
            rows = getattr(packed, part).offsets[:, 3].tolist()
            assert sorted(rows) == list(range(len(split))), "each image once"
        rows_of_labels = split.labels.reshape(len(split), -1)
        labels = [np.flatnonzero(row) if source.multilabel else row[row >= 0] for row in rows_of_labels]
        pixels = [Image.open(split.open(i)).tobytes() for i in range(len(split))]
        found.append([(pixels[i], [source.classes[k] for k in labels[i]]) for i in rows])
    return found


@pytest.mark.parametrize(
    ("write", "labels"),
    [
        (layouts.stl10, [("cat",), ("dog",), ("cow",)] * 8),
        (layouts.stl10, [("cat",), ("dog",), (), ("cow",), ()] * 6),
        (layouts.tars, [("cat",), ("dog",), (), ("cow",), ()] * 6),
        (layouts.several_labels, [("cat",), ("cat", "dog"), ("dog", *"abcdefgh"), ("b",)] * 6),
        (layouts.several_labels, [("cat",), ("cat", "dog"), (), ("dog",)] * 6),
    ],
    ids=["labeled", "some-labeled", "some-labeled-tars", "several-labels", "some-with-several-labels"],
)
def test_what_is_packed_is_the_same_dataset(write, labels, place, tmp_path, capsys):
    data = write(tmp_path / "data", noise(labels))
    source = open_source(data)
    pack.main([data, place, *OPTIONS])
    packed = open_source(place)
    assert packed.classes == source.classes and packed.multilabel == source.multilabel
    assert packed.train.labels.shape == source.train.labels.shape
    assert packed.train.labels.dtype == packed.test.labels.dtype == source.train.labels.dtype
    assert contents(packed, packed) == contents(source, packed)
    assert int((~packed.train.labeled).sum()) == labels.count(())
    assert f"{place}: {len(labels)} images" in capsys.readouterr().out and packed.train.remote == is_url(place)
    open_source.cache_clear()
    pack.main([data, place, *OPTIONS])
    assert "2 of them already there" in capsys.readouterr().out


@pytest.mark.network
def test_packing_into_a_store_continues_and_repairs(store, shapes, tmp_path, monkeypatch, capsys):
    """A shard that could not be written stops nothing, and until the end nobody takes what is there for a dataset."""
    place, finish, files = f"{store}/shapes", pack.finish_shard, fsspec.filesystem("s3")

    def one_fails(path, *rest):
        if path.name == "shard-000000.tar":
            raise OSError("no space left on device")
        return finish(path, *rest)

    monkeypatch.setattr(pack, "finish_shard", one_fails)
    with pytest.raises(pack.JobsFailed, match="1 of 2 shards failed"):
        pack.main([str(shapes), place])
    with pytest.raises(UserError, match="shapes: not packed to the end; run the same tilespin pack again"):
        open_source(place)
    monkeypatch.undo()
    monkeypatch.setenv("TILESPIN_CACHE", str(tmp_path / "cache"))
    pack.main([str(shapes), place])
    assert "1 of them already there" in capsys.readouterr().out
    pack.main([str(shapes), str(tmp_path / "local")])
    names = sorted(path.name for path in (tmp_path / "local").iterdir() if path.is_file())
    for name in names:
        assert files.cat_file(f"bucket/shapes/{name}") == (tmp_path / "local" / name).read_bytes(), name
    files.pipe_file("bucket/shapes/shard-000001.tar", b"of somebody else")
    capsys.readouterr()
    pack.main([str(shapes), place])
    assert "1 of them already there" in capsys.readouterr().out
    assert files.cat_file("bucket/shapes/shard-000001.tar") == (tmp_path / "local" / "shard-000001.tar").read_bytes()
    with pytest.raises(UserError, match="was packed with --side 256, not 128"):
        pack.main([str(shapes), place, "--side", "128"])


@pytest.fixture
def packed_labels(tmp_path):
    images = noise([("a",), ("a", "b"), ("b",), ()] * 6)
    pack.main([layouts.several_labels(tmp_path / "data", images), str(tmp_path / "p")])
    return tmp_path / "p"


def test_labels_lie_beside_their_image_in_the_tar_file(packed_labels):
    """As numbers of classes, in webdataset's layout; an image without any has no such file."""
    source, found = open_source(str(packed_labels)), {}
    for shard in packed_labels.glob("*.tar"):
        with tarfile.open(shard) as tar:
            texts = {one.name.split(".")[0]: tar.extractfile(one).read() for one in tar if one.name.endswith(".json")}
        found |= {f"{shard.name}: {key}": json.loads(text)["labels"] for key, text in texts.items()}
    for split in (source.train, source.test):
        for i, label in enumerate(split.labels):
            assert found.pop(split.name(i), []) == np.flatnonzero(label).tolist()
    assert not found and int((~source.train.labeled).sum()) == 6


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("labels.npy", b"", "labels.npy is missing or damaged: run the same tilespin pack again"),
        ("packed.npy", b"", "packed.npy is missing or damaged"),
    ],
)
def test_damaged_labels_are_said(packed_labels, name, value, words):
    (packed_labels / name).write_bytes(value)
    with pytest.raises(UserError, match=words):
        open_source(str(packed_labels))


@pytest.mark.parametrize("classes", [[], [str(i) for i in range(9)]])
def test_labels_of_other_classes_are_said(packed_labels, classes):
    index = json.loads((packed_labels / "index.json").read_text())
    (packed_labels / "index.json").write_text(json.dumps({**index, "classes": classes}))
    with pytest.raises(UserError, match=r"labels\.npy does not fit index\.json: pack it again"):
        open_source(str(packed_labels))
