"""Packed datasets: what is in the shards, who can read them, and what happens to damaged ones."""

import hashlib
import io
import json
import os
import pickle
import shutil
import tarfile
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from support.packing import pack
from support.synthetic_images import gradients

from ssl_core.data.dataset import Arrays, Source, open_source
from ssl_core.data.decoding.crops import crop_resize
from ssl_core.data.decoding.decode import read_image
from ssl_core.data.loaders.cpu import CpuLoader
from ssl_core.data.packing.index import find_duplicates
from ssl_core.data.packing.shard import Packing, finish_shard, write_shard
from ssl_core.data.sampler import ShuffledSampler
from ssl_core.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Two classes of 15: JPEG, PNG, CMYK, gray, large and small; three more that cannot be decoded."""
    root = tmp_path_factory.mktemp("mixed")
    for i in range(30):
        image = Image.fromarray(gradients(1, (40, 90, 200)[i % 3], seed=i)[0].numpy())
        image = image.resize((image.width * 3 // 2, image.height))
        image = image.quantize(64, dither=0) if i % 5 == 4 else image.convert(("RGB", "CMYK", "L", "RGB")[i % 5])
        path = root / "ab"[i % 2] / f"{i:02d}.{'png' if i % 5 > 2 else 'jpg'}"
        path.parent.mkdir(exist_ok=True)
        image.save(path)
    whole = (root / "a" / "00.jpg").read_bytes()
    (root / "a" / "cut.jpg").write_bytes(whole[: len(whole) // 3])
    (root / "b" / "empty.png").write_bytes(b"")
    (root / "b" / "text ü.jpg").write_text("not an image")
    return root


def original(source: Source, split, i: int):
    """The image of the source that image `i` of a packed split was made from, and its label there."""
    number = int(split.offsets[i, 3])
    files = getattr(source, split.part)
    return read_image(lambda: files.open(number)), int(files.labels[number])


def test_counts_add_up_and_pixels_stay(mixed, tmp_path):
    source = open_source(str(mixed))
    index = pack(source, tmp_path, per_shard=7, side=64)
    packed = open_source(str(tmp_path))
    assert index["images"] == len(packed.train) + len(packed.test) == 30
    assert index["skipped"] == 3 and index["images"] + 3 == len(source.train) + len(source.test)
    lines = (tmp_path / "skipped.txt").read_text().splitlines()
    assert sorted(os.path.basename(line.split("\t")[1]) for line in lines) == ["cut.jpg", "empty.png", "text ü.jpg"]
    assert packed.classes == source.classes and packed.mean == source.mean and packed.size == 64
    for split in (packed.train, packed.test):
        assert sorted(split.offsets[:, 3]) == sorted(set(split.offsets[:, 3]))
        for i in range(len(split)):
            image, label = original(source, split, i)
            assert label == split.labels[i]
            small = read_image(partial(split.open, i))
            assert min(small.size) == min(64, min(image.size))
            assert abs(small.width / small.height - image.width / image.height) < 0.03
            want = np.asarray(image.resize(small.size, Image.LANCZOS), int)
            assert np.abs(np.asarray(small, int) - want).mean() < 6


def test_raw_is_lossless(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    source = Source(
        "noise",
        "x",
        32,
        Arrays(images, np.arange(20) % 3),
        Arrays(images[:5], np.arange(5) % 3),
        ("a", "b", "c"),
        (1.0,) * 3,
        (2.0,) * 3,
    )
    pack(source, tmp_path, lossless=True)
    packed = open_source(str(tmp_path))
    assert (packed.size, packed.mean, packed.std, packed.classes) == (32, (1.0,) * 3, (2.0,) * 3, ("a", "b", "c"))
    for found, given in ((packed.train, source.train), (packed.test, source.test)):
        assert len(found) == len(given)
        for batch in CpuLoader(found, 32, CPU, 0).evaluation(np.arange(len(found))):
            numbers = found.offsets[batch.ids.numpy(), 3]
            assert np.array_equal(batch.images.numpy(), given.images[numbers])
            assert np.array_equal(batch.labels.numpy(), given.labels[numbers])


def test_shards_are_plain_webdataset_tars(mixed, tmp_path):
    pack(open_source(str(mixed)), tmp_path, per_shard=7)
    packed, found = open_source(str(tmp_path)), {}
    for shard in sorted(tmp_path.glob("*.tar")):
        with tarfile.open(shard) as tar:
            names = tar.getnames()
            for image, label in zip(names[::2], names[1::2], strict=True):
                assert image.split(".") == [label.split(".")[0], "jpg"] and label.endswith(".cls")
                read = [tar.extractfile(name).read() for name in (image, label)]
                found[f"{shard.name}: {image.split('.')[0]}"] = read[0], int(read[1])
    for split in (packed.train, packed.test):
        for i in range(len(split)):
            assert found.pop(split.name(i)) == (split.open(i).read(), split.labels[i])
    assert not found


def read_by_webdataset(shards: list[str], count: int) -> list[tuple[bytes, int]]:
    webdataset = pytest.importorskip("webdataset")
    return [(sample["jpg"], int(sample["cls"])) for sample in webdataset.WebDataset(shards, shardshuffle=False)]


def read_by_dali(shards: list[str], count: int) -> list[tuple[bytes, int]]:
    fn = pytest.importorskip("nvidia.dali.fn")
    from nvidia.dali import pipeline_def

    @pipeline_def(batch_size=count, num_threads=1, device_id=None)
    def read():
        return tuple(fn.readers.webdataset(paths=shards, ext=["jpg", "cls"]))

    images, labels = read().run()
    return [(bytes(images.at(i)), int(bytes(labels.at(i)))) for i in range(count)]


@pytest.mark.parametrize("reader", [read_by_webdataset, read_by_dali])
def test_other_programs_read_them(mixed, tmp_path, reader):
    pack(open_source(str(mixed)), tmp_path, per_shard=7)
    packed = open_source(str(tmp_path))
    want = [
        (split.open(i).read(), int(split.labels[i])) for split in (packed.train, packed.test) for i in range(len(split))
    ]
    assert reader([str(path) for path in sorted(tmp_path.glob("*.tar"))], len(want)) == want


def test_the_same_source_gives_the_same_bytes_and_a_copy_keeps_its_digest(mixed, tmp_path):
    for name in ("one", "two"):
        pack(open_source(str(mixed)), tmp_path / name, per_shard=7)
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two and len([name for name in one if name.endswith(".tar")]) > 3
    shutil.copytree(tmp_path / "one", tmp_path / "elsewhere" / "three")
    digests = {open_source(str(tmp_path / name)).digest for name in ("one", "two", "elsewhere/three")}
    assert len(digests) == 1
    pack(open_source(str(mixed)), tmp_path / "other", per_shard=7, quality=80)
    assert open_source(str(tmp_path / "other")).digest not in digests


def test_a_packed_dataset_can_be_packed_again(mixed, tmp_path):
    pack(open_source(str(mixed)), tmp_path / "large", side=80)
    large = open_source(str(tmp_path / "large"))
    pack(large, tmp_path / "small", side=40)
    small = open_source(str(tmp_path / "small"))
    assert (len(small.train), len(small.test)) == (len(large.train), len(large.test))
    numbers = small.train.offsets[:, 3]
    assert np.array_equal(small.train.labels, large.train.labels[numbers])
    assert min(read_image(lambda: small.train.open(0)).size) == 40


def test_unlabeled_images_have_no_cls(photos, tmp_path):
    index = pack(open_source(str(photos)), tmp_path, side=96)
    packed = open_source(str(tmp_path))
    assert (packed.train.labels == -1).all() and len(packed.test) == 0 and packed.classes == ()
    assert index["images"] == 20 and index["skipped"] == 3
    with tarfile.open(tmp_path / "shard-000000.tar") as tar:
        assert {name.split(".")[1] for name in tar.getnames()} == {"jpg"}


def test_of_duplicates_the_test_image_stays(shapes, tmp_path):
    root = tmp_path / "source"
    for name in ("train/rows", "train/rings", "test/rows"):
        shutil.copytree(shapes / name.split("/")[1], root / name)
    shutil.copy(root / "train/rings/000.png", root / "train/rings/again.png")
    for path in (root / "test/rows").iterdir():
        if path.stem > "004":
            path.unlink()
    source = open_source(str(root))
    assert len(find_duplicates(source)) == 6
    index = pack(source, tmp_path / "packed", drop_duplicates=True)
    packed = open_source(str(tmp_path / "packed"))
    assert index["duplicates"] == 6 and len(packed.train) == 115 and len(packed.test) == 5
    lines = (tmp_path / "packed" / "skipped.txt").read_text().splitlines()
    assert len(lines) == 6 and "has the bytes of test-00000000" in "".join(lines)


def test_shards_mix_the_classes_and_have_the_size_asked_for(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (1200, 32, 32, 3), np.uint8)
    source = Source("noise", "x", 32, Arrays(images, np.arange(1200) // 600), Arrays(images[:0], np.zeros(0, np.int64)))
    pack(source, tmp_path, lossless=True, shard_mb=1)
    sizes = [path.stat().st_size for path in tmp_path.glob("*.tar")]
    assert len(sizes) > 3 and all(0.7e6 < size < 1.3e6 for size in sizes)
    labels = open_source(str(tmp_path)).train.labels[: 1200 // len(sizes)]
    assert 0.3 < labels.mean() < 0.7


def test_a_finished_shard_is_not_written_again_but_a_damaged_one_is(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)
    split, shard, record = Arrays(images, np.arange(6)), tmp_path / "s.tar", tmp_path / "s.json"
    first = finish_shard(shard, record, split, "train", range(6), Packing())
    assert not first["kept"]
    written = shard.stat().st_mtime_ns
    again = finish_shard(shard, record, split, "train", range(6), Packing())
    assert again["kept"] and shard.stat().st_mtime_ns == written
    whole = shard.read_bytes()
    shard.write_bytes(whole[:600] + b"?" + whole[601:])
    assert not finish_shard(shard, record, split, "train", range(6), Packing())["kept"]
    assert shard.read_bytes() == whole


# Reading


@pytest.fixture
def packed_shapes(shapes, tmp_path):
    pack(open_source(str(shapes)), tmp_path / "packed", per_shard=60)
    return tmp_path / "packed"


def test_a_damaged_image_is_skipped_and_named_by_shard_and_key(packed_shapes):
    split = open_source(str(packed_shapes)).train
    shard, offset, length, number = split.offsets[70].tolist()
    path = split.shards[shard].path
    data = bytearray(path.read_bytes())
    data[offset : offset + length] = bytes(length)
    path.write_bytes(data)
    warned = []
    loader = CpuLoader(split, 32, CPU, 1, warned.append)
    met = list(loader.training(ShuffledSampler(len(split), 0), 60, range(4), 0, 1))
    assert len(met) == 4 and not any((batch.ids == 70).any() for batch in met)
    assert loader.skipped == {f"shard-000001.tar: train-{number:08d}"}
    (said,) = warned
    assert f"shard-000001.tar: train-{number:08d}" in said and "0x" not in said


def test_a_split_travels_to_other_processes(packed_shapes):
    split = open_source(str(packed_shapes)).train
    first = split.open(0).read()
    assert pickle.loads(pickle.dumps(split)).open(0).read() == first


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda p: (p / "shard-000001.tar").unlink(), "shard-000001.tar is missing"),
        (lambda p: os.truncate(p / "shard-000001.tar", 1000), "shard-000001.tar has 1,000 bytes instead of"),
        (lambda p: (p / "packed.npy").write_bytes(b"?"), "packed.npy is missing or damaged"),
        (lambda p: (p / "index.json").unlink(), "not packed to the end"),
        (lambda p: (p / "index.json").write_text("{"), "index.json is damaged"),
        (lambda p: (p / "index.json").write_text("{}"), "not of the format"),
        (lambda p: (p / "index.json").write_text('{"format": "tilespin-packed-1"}'), "index.json is damaged"),
    ],
)
def test_what_is_missing_or_damaged_is_said_at_once(packed_shapes, harm, words):
    harm(packed_shapes)
    with pytest.raises(UserError, match=words):
        open_source(str(packed_shapes))


def retold(place, index=None, rows=None, table: bytes | None = None) -> None:
    """Writes what index(the index) and rows(the table) make of them, as somebody who knows the sums would."""
    told = json.loads((place / "index.json").read_text())
    if rows:
        file = io.BytesIO()
        np.save(file, rows(np.load(place / "packed.npy")))
        table = file.getvalue()
    if table is not None:
        (place / "packed.npy").write_bytes(table)
        told["table_sha256"] = hashlib.sha256(table).hexdigest()
    if index:
        index(told)
    (place / "index.json").write_text(json.dumps(told))


def put(row: int, column: int, value: int):
    def change(rows: np.ndarray) -> np.ndarray:
        rows[row, column] = value
        return rows

    return {"rows": change}


def first_shard(**told):
    return {"index": lambda index: index["splits"]["train"]["shards"][0].update(told)}


def npy(header: str) -> bytes:
    return b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header.encode()


HOSTILE = {
    "bytes in words": first_shard(bytes="9"),
    "bytes below 0": first_shard(bytes=-1),
    "no bytes": first_shard(bytes=0),
    "images in words": first_shard(images="9"),
    "too many images": first_shard(images=10**30),
    "another count": first_shard(images=1),
    "a way out": first_shard(name=".."),
    "no name": first_shard(name=""),
    "no sum": first_shard(sha256=None),
    "no shards": {"index": lambda index: index["splits"]["train"].update(shards=[])},
    "shards in words": {"index": lambda index: index["splits"]["train"].update(shards="ab")},
    "a list": {"index": lambda index: index.update(splits=[])},
    "two means": {"index": lambda index: index.update(mean=[1, 2])},
    "std 0": {"index": lambda index: index.update(std=[0, 1, 1])},
    "size": {"index": lambda index: index.update(size=10**9)},
    "classes": {"index": lambda index: index.update(classes=[1, 2])},
    "empty": {"table": b""},
    "no npy": {"table": b"PK\3\4" + bytes(100)},
    "open bracket": {"table": npy("{'descr': (")},
    "no end": {"table": npy("{'descr': '''")},
    "no memory": {"table": npy(str({"descr": "<i8", "fortran_order": False, "shape": (2**60,)}))},
    "one dimension": {"rows": lambda rows: rows[:, 0]},
    "four columns": {"rows": lambda rows: rows[:, :4]},
    "floats": {"rows": lambda rows: rows.astype(float)},
    "a row less": {"rows": lambda rows: rows[1:]},
    "not in order": {"rows": lambda rows: rows[::-1]},
    "no such shard": put(-1, 0, 99),
    "shard -1": put(0, 0, -1),
    "offset -1": put(0, 1, -1),
    "offset 2^63": put(0, 1, 2**63 - 1),
    "length -1": put(0, 2, -1),
    "length 2^63": put(0, 2, 2**63 - 1),
    "number -1": put(0, 3, -1),
    "label -2": put(0, 4, -2),
    "label": put(0, 4, 99),
}


@pytest.mark.parametrize("harm", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_index_is_one_line(packed_once, tmp_path, harm):
    shutil.copytree(packed_once, tmp_path / "packed")
    retold(tmp_path / "packed", **harm)
    with pytest.raises(UserError, match=r"packed(.npy does not fit|: index.json is damaged: )") as error:
        open_source(str(tmp_path / "packed"))
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def packed_once(mixed, tmp_path_factory):
    place = tmp_path_factory.mktemp("once") / "packed"
    pack(open_source(str(mixed)), place, side=16, per_shard=5)
    return place


def test_enlarging_is_remarked(packed_shapes):
    assert open_source(str(packed_shapes), 96).notes == ()
    assert "enlarged" in open_source(str(packed_shapes), 300).notes[0]


def test_nothing_decodes(tmp_path):
    source = Source(
        "none",
        "x",
        32,
        Arrays(np.zeros((0, 8, 8, 3), np.uint8), np.zeros(0, np.int64)),
        Arrays(np.zeros((2, 8, 8, 3), np.uint8), np.zeros(2, np.int64)),
    )
    with pytest.raises(UserError, match="nothing is packed"):
        pack(source, tmp_path)


def crop(image: Image.Image, box: tuple[float, float, float], size: int) -> torch.Tensor:
    pixels = torch.from_numpy(np.array(image).flatten())
    return crop_resize(pixels, np.array([[0, image.height, image.width]]), np.array([box]), size)[0].int()


def test_a_crop_is_that_of_the_original(mixed, tmp_path):
    source = open_source(str(mixed))
    pack(source, tmp_path, side=96, quality=95)
    split = open_source(str(tmp_path)).train
    for i in range(len(split)):
        image, _ = original(source, split, i)
        box = (0.5, 0.3, 0.6)
        near, want = (crop(one, box, 32) for one in (read_image(partial(split.open, i)), image))
        assert (near - want).abs().float().mean() < 8
    assert json.loads((tmp_path / "index.json").read_text())["options"]["side"] == 96


def test_one_shard_by_itself(tmp_path):
    images = np.zeros((3, 16, 16, 3), np.uint8)
    record = write_shard(tmp_path / "a.tar", Arrays(images, np.array([4, -1, 2])), "train", [2, 1], Packing())
    assert (record["images"], record["bytes"]) == (2, (tmp_path / "a.tar").stat().st_size)
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert tar.getnames() == ["train-00000002.jpg", "train-00000002.cls", "train-00000001.jpg"]
        assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in tar} == {(0, 0, 0, "", 0o644)}
