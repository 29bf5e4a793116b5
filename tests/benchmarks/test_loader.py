"""The loader benchmark: every reader delivers the batches that it is timed for, and the result says what it was."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from benchmarks import loader

ROOT = pathlib.Path(__file__).parents[2]
SIZE, BATCH = 16, 4


@pytest.fixture
def folder(tmp_path):
    chance = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(3 * BATCH):
        Image.fromarray(chance.integers(0, 256, (30, 40, 3), np.uint8)).save(tmp_path / f"photos/{i}.jpg")
    return tmp_path / "photos"


def test_every_reader_delivers_normalised_batches(folder):
    found = loader.readers(str(folder), None, SIZE, BATCH, 0)
    for name, read in found.items():
        if name == "DALI":
            continue  # it needs a thread
        batches = list(read())
        assert len(batches) == 3, name
        assert all(tuple(batch.shape) == (BATCH, 3, SIZE, SIZE) for batch in batches), name
        mean = np.mean([float(batch.mean()) for batch in batches])
        assert abs(mean - (127.5 / 255 - 0.45) / 0.225) < 0.15, name


def test_it_runs_and_says_what_it_measured(folder, tmp_path):
    options = f"--sizes {SIZE} --batch {BATCH} --workers 1 --rounds 1 --into {tmp_path}".split()
    command = [sys.executable, "-m", "benchmarks.loader", str(folder), *options]
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    (path,) = tmp_path.glob("*-loader-cpu.json")
    result = json.loads(path.read_text())
    assert {"tilespin folder", "tilespin memory", "DataLoader, torchvision", "DataLoader, PIL"} <= {
        line["reader"] for line in result["lines"]
    }
    assert all(line["p50"] > 0 and line["reader"] in run.stdout for line in result["lines"])
