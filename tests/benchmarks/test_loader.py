"""The loader benchmark: every reader delivers the batches that it is timed for, and the result says what it was."""

import json
import pathlib

import numpy as np
import pytest
import torch
from PIL import Image
from support.command import run_forked

from benchmarks import loader
from benchmarks.readers import Photos
from ssl_core.data.dataset import open_source
from ssl_core.data.packing.shard import Packing

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
SIZE, BATCH = 16, 4


@pytest.fixture
def folder(tmp_path):
    chance = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(3 * BATCH):
        Image.fromarray(chance.integers(0, 256, (30, 40, 3), np.uint8)).save(tmp_path / f"photos/{i}.jpg")
    return tmp_path / "photos"


@pytest.fixture
def photos(folder, tmp_path) -> Photos:
    paths, source = tuple(sorted(folder.iterdir())), open_source(str(folder))
    packed = loader.pack(source, tmp_path / "packed", Packing())
    raw = loader.pack(source, tmp_path / "raw", Packing(lossless=True))
    tars = loader.tar_up(paths, tmp_path / "tars", 2)
    parquets = loader.parquet_up(paths, tmp_path / "parquet", 2)
    return Photos(folder, paths, tars, parquets, packed, raw, SIZE, BATCH, 2, torch.device("cpu"))


def test_every_reader_delivers_normalized_batches(photos):
    found = loader.readers()["to a batch"]
    own = {"tilespin cpu", "tilespin cpu, tars", "tilespin cpu, parquet", "tilespin memory"}
    assert {*own, "DataLoader, torchvision"} <= set(found)
    for name, read in found.items():
        batches = list(read(photos))
        passes = 10 if name == "tilespin memory" else 1
        assert sum(map(len, batches)) == passes * 3 * BATCH, name
        assert all(tuple(batch.shape[1:]) == (3, SIZE, SIZE) for batch in batches), name
        mean = np.mean([float(batch.mean()) for batch in batches])
        assert abs(mean - (127.5 / 255 - 0.45) / 0.225) < 0.15, name


def test_every_decoder_decodes_all(photos):
    for name, decode in loader.readers()["decode only"].items():
        assert sum(decode(photos)) == 3 * BATCH, name


def test_it_runs_and_says_what_it_measured(folder, tmp_path):
    options = f"--sizes {SIZE} --train-size {SIZE} --batch {BATCH} --cores 1 --rounds 1 --steps 12 --into {tmp_path}"
    run = run_forked(folder, *options.split(), module="benchmarks.loader")
    run.check_returncode()
    (path,) = tmp_path.glob("*-loader-cpu.json")
    result = json.loads(path.read_text())
    readers = {line["reader"] for line in result["lines"]}
    assert {"tilespin cpu", "tilespin memory", "DataLoader, torchvision", "DataLoader, Pillow"} <= readers
    speeds = [line["p50"] for line in result["lines"] if line["stage"] != "training"]
    waits = {line["reader"]: line["waited"] for line in result["lines"] if line["stage"] == "training"}
    assert min(speeds) > 0 and "memory, folder" in waits and all(0 <= share <= 1 for share in waits.values())
    assert all(reader.split(",")[0] in run.stdout for reader in readers)
    assert path.with_suffix(".svg").read_text().startswith("<?xml")
