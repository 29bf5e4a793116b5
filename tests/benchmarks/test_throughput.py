"""benchmarks/throughput.py: every pipeline trains what Tilespin's does, and a run that was cut off continues."""

import json
import sys

import pytest
import torch

from benchmarks import throughput
from benchmarks.harness.environment import describe
from benchmarks.loader import make_photos, pack
from benchmarks.pipelines import Case, torchvision
from kernels.random import RandomBits
from ssl_core.data.dataset import open_source
from ssl_core.data.loaders.select import training_batches
from ssl_core.data.packing.shard import Packing

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return make_photos(tmp_path_factory.mktemp("throughput") / "photos", count=24)


@pytest.fixture(scope="module")
def case(photos, tmp_path_factory):
    packed = pack(open_source(str(photos)), tmp_path_factory.mktemp("packed") / "packed", Packing())

    def case(task: str) -> Case:
        encoder = throughput.encoder_of("small", task, 32)
        where = dict(device=torch.device("cpu"), precision="fp32", compile=False, cores=1)
        return Case(task=task, encoder=encoder, data=str(photos), packed=packed, size=32, batch=8, **where)

    return case


def shapes(made) -> object:
    if isinstance(made, torch.Tensor):
        return tuple(made.shape), made.dtype
    return tuple(shapes(one) for one in made)


@pytest.mark.parametrize("task", throughput.TASKS)
def test_a_person_s_loop_makes_batches_like_tilespin_s(case, task):
    case = case(task)
    model = case.model()
    _, batches = training_batches(
        case.source, batch=8, steps=range(1), seed=0, rank=0, world=1, device=case.device, threads=1
    )
    [batch] = batches
    ours = model.task.make_batch(batch, RandomBits(batch.ids, batch.epochs, 0), case.format)
    theirs = next(torchvision.MAKERS[task](case, model))
    assert shapes(theirs) == shapes(ours)
    (first, *_), (other, *_) = (made[0] if isinstance(made[0], tuple) else made for made in (ours, theirs))
    assert first.is_contiguous(memory_format=torch.channels_last) and first.stride() == other.stride()
    # normalized alike: the same photos, cut otherwise
    assert abs(first.mean() - other.mean()) < 0.5 and 0.5 < first.std() / other.std() < 2


def test_all_sides_take_turns(case):
    found = throughput.measure(case("rotnet"), rounds=6, seconds=0)
    assert set(found["sides"]) == {"Tilespin", "Tilespin, packed", "one batch", "DataLoader, torchvision"}
    assert all(len(line["rates"]) == 6 and line["median"] > 0 for line in found["sides"].values())
    assert {name for name, line in found["sides"].items() if "times_as_fast" not in line} == {"Tilespin"}
    assert found["parts"]["backward"] > 0 and sum(found["parts"].values()) < 1
    assert found["encoder_macs"] > 1e6


def test_what_was_measured_is_not_measured_again(photos, tmp_path, monkeypatch, capsys):
    measured = []

    def measure(case, rounds, seconds):
        measured.append(case.task)
        line = {"median": 2.0, "low": 1.0, "high": 3.0, "loss_falls": True}
        return {"sides": {"Tilespin": line, "one batch": line}, "parts": {}}

    monkeypatch.setattr(throughput, "measure", measure)
    run = [str(photos), "--sizes", "96", "--encoders", "small", "--into", str(tmp_path), "--tasks"]
    for tasks in (["rotnet"], ["rotnet", "jigsaw"], ["jigsaw"]):
        monkeypatch.setattr(sys, "argv", ["throughput", *run, *tasks])
        throughput.main()
    assert measured == ["rotnet", "jigsaw"]
    assert "rotnet, convnet, 96 px (from before)" in capsys.readouterr().out
    path, plot = sorted(tmp_path.iterdir())
    assert plot.suffix == ".svg" and b"rotnet, convnet, 96 px" in plot.read_bytes()
    kept = json.loads(path.read_text())
    assert kept["machine"] == describe() and list(kept["cases"]) == ["rotnet, convnet, 96 px", "jigsaw, convnet, 96 px"]
    monkeypatch.setattr(sys, "argv", ["throughput", *run, "rotnet", "--seconds", "1"])
    throughput.main()
    assert measured[2:] == ["rotnet"]  # measured in another way
