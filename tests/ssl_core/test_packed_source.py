"""Opening packed datasets: damaged, unfinished and hostile ones are refused, and damaged images are skipped."""

import hashlib
import io
import json
import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from support.packing import pack

from ssl_core.data.dataset import open_source
from ssl_core.data.loaders.cpu import CpuLoader
from ssl_core.data.sampler import ShuffledSampler
from ssl_core.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture
def packed_shapes(shapes, tmp_path):
    pack(open_source(str(shapes)), tmp_path / "packed", per_shard=60)
    return tmp_path / "packed"


@pytest.fixture(scope="module")
def packed_once(mixed, tmp_path_factory):
    place = tmp_path_factory.mktemp("once") / "packed"
    pack(open_source(str(mixed)), place, side=16, per_shard=5)
    return place


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
        (lambda p: (p / "index.json").write_text("{}"), "wrote no versions"),
        (lambda p: (p / "index.json").write_text('{"version": 1}'), "index.json is damaged"),
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
    "bytes in words": first_shard(bytes="nine"),
    "bytes below 0": first_shard(bytes=-1),
    "no bytes": first_shard(bytes=0),
    "images in words": first_shard(images="nine"),
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


def test_enlarging_is_remarked(packed_shapes):
    assert open_source(str(packed_shapes), 96).notes == ()
    assert "enlarged" in open_source(str(packed_shapes), 300).notes[0]
