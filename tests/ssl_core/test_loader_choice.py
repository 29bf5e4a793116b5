"""How one of the loaders is chosen."""

import os

import numpy as np
import pytest
import torch
from support.jpegs import CPU
from support.loaders import KINDS
from support.synthetic_images import arrays

import ssl_core.data.loaders.resident as resident
import ssl_core.data.loaders.select as loader
from ssl_core.data.dataset import Packed, Source, open_source
from ssl_core.data.loaders.resident import ResidentLoader, bytes_needed, sample_ids
from ssl_core.data.remote import RemoteShard
from ssl_core.data.sampler import ShuffledSampler
from ssl_core.errors import UserError
from ssl_core.storage.object_store import Object


def source(split, size: int = 16) -> Source:
    return Source("some", "x", size, split, split)


def test_auto_keeps_in_memory_what_fits(jpegs, monkeypatch):
    assert loader.choose_loader("auto", source(jpegs), CPU, 1)[0] == "memory"
    cores = os.cpu_count()
    assert (
        loader.max_resident_bytes(CPU, 1)
        == loader.max_resident_bytes(CPU, cores)
        == 2 * loader.max_resident_bytes(CPU, 2 * cores)
    )
    monkeypatch.setattr(loader, "max_resident_bytes", lambda device, world: bytes_needed(jpegs, 16) - 1)
    assert loader.choose_loader("auto", source(jpegs), CPU, 1)[0] == "cpu"
    for name in ("cpu", "memory"):
        assert loader.choose_loader(name, source(jpegs), CPU, 1)[0] == name


def test_what_images_will_take_is_judged_well(jpegs, monkeypatch):
    monkeypatch.setattr(resident, "SAMPLE_IMAGES", 4)
    made = ResidentLoader(jpegs, 16, CPU, 1)
    next(made.training(ShuffledSampler(len(jpegs), 0), 2, range(1), 0, 1))
    judged = bytes_needed(jpegs, 16)
    assert judged != made.images.nbytes and judged == pytest.approx(made.images.nbytes, rel=0.2)
    assert made.regions[:, 1:].min(1).tolist() == [32] * len(jpegs), "as small as crops allow"


def test_to_judge_what_has_to_be_fetched_one_shard_is_enough():
    places = np.stack([np.arange(400) // 40, *[np.zeros(400, np.int64)] * 3], axis=1)
    shards = tuple(RemoteShard(Object(f"s3://b/{number}.tar", 9, "1")) for number in range(10))
    near, far = (Packed("train", shards, places, np.zeros(400, np.int64), windowed) for windowed in (False, True))
    assert set(places[sample_ids(far), 0]) == {0} and set(places[sample_ids(near), 0]) == set(range(10))


def test_what_cannot_be_had_is_refused(jpegs, monkeypatch):
    decoded = source(arrays(4, 16))
    assert (
        loader.choose_loader("auto", decoded, CPU, 1)[0]
        == loader.choose_loader("memory", decoded, CPU, 1)[0]
        == "memory"
    )
    with pytest.raises(UserError, match="--loader cpu: some is kept decoded"):
        loader.choose_loader("cpu", decoded, CPU, 1)
    with pytest.raises(UserError, match="there is auto, dali, cpu, memory"):
        loader.choose_loader("ffcv", source(jpegs), CPU, 1)
    monkeypatch.setattr(loader, "dali_installed", lambda: False)
    with pytest.raises(UserError, match="--loader dali: it is not installed"):
        loader.choose_loader("dali", source(jpegs), CPU, 1)
    assert "cpu" in loader.choose_decoder(torch.device("cuda"))


@pytest.mark.parametrize("name", [*[kind.__name__ for kind in KINDS]])
def test_the_chosen_loader_reads(shapes, name):
    named = {"CpuLoader": "cpu", "ResidentLoader": "memory", "DaliLoader": "dali"}
    options = dict(batch=8, steps=range(4), seed=0, rank=0, world=1, device=CPU, threads=2, loader=named[name])
    made, met = loader.training_batches(open_source(str(shapes)), **options)
    assert type(made).__name__ == name and sum(len(batch.ids) for batch in met) == 32
