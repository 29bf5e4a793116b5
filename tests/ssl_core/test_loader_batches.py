"""What batches hold: whoever reads them, with how many threads, and what becomes of files that cannot be decoded."""

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from support.image_folders import put
from support.loaders import each_kind
from support.synthetic_images import arrays

from ssl_core.data.dataset import Files, Shard, open_source
from ssl_core.data.loaders.arrays import ArrayLoader
from ssl_core.data.loaders.cpu import CpuLoader
from ssl_core.data.loaders.select import training_batches
from ssl_core.data.sampler import ShuffledSampler, batch_positions

CPU = torch.device("cpu")


@pytest.fixture
def folder_with_a_broken_file(tmp_path):
    put(tmp_path, *(f"{i}.png" for i in range(6)))
    (tmp_path / "3.png").write_bytes((tmp_path / "3.png").read_bytes()[:60])
    return tmp_path


@each_kind
def test_a_broken_file_weighs_nothing_and_is_named_once(folder_with_a_broken_file, kind, capsys):
    source = open_source(str(folder_with_a_broken_file), 16)
    loader = kind(source.train, 16, CPU, 2)
    met = list(loader.training(ShuffledSampler(6, 0), 6, range(3), 0, 1))
    for batch in met:
        assert torch.equal(batch.weights == 0, batch.ids == 3)
        assert not batch.images[batch.ids == 3].any() and batch.images[batch.ids != 3].any()
    broken = str(folder_with_a_broken_file / "3.png")
    assert loader.skipped == {broken}
    said = capsys.readouterr().err
    assert said.count("warning: skipped") == 1 and broken in said


def test_training_leaves_out_what_cannot_be_decoded(folder_with_a_broken_file):
    """A black stand-in would change the statistics of batch norm for the others."""
    source = open_source(str(folder_with_a_broken_file), 16)
    loader = CpuLoader(source.train, 16, CPU, 0, warn=lambda said: None)
    [batch] = loader.training(ShuffledSampler(6, 0), 6, range(1), 0, 1)
    assert sorted(batch.ids.tolist()) == [0, 1, 2, 4, 5] and batch.weights.tolist() == [1.0] * 5
    [alone] = CpuLoader(Files([source.train.paths[3]], source.train.labels[:1]), 16, CPU, 0, print).training(
        ShuffledSampler(1, 0), 4, range(1), 0, 1
    )
    assert alone.weights.tolist() == [0.0], "a batch of which nothing is left keeps its place in the order"


def test_a_folder_smaller_than_a_batch_fills_it(tmp_path):
    put(tmp_path, "1.png", "2.png", "3.png")
    source = open_source(str(tmp_path), 16)
    _, batches = training_batches(source, batch=8, steps=range(3), seed=0, rank=0, world=1, device=CPU, threads=1)
    met = list(batches)
    assert [len(batch.ids) for batch in met] == [8, 8, 8]
    ids, epochs = (torch.cat([getattr(batch, name) for batch in met]).tolist() for name in ("ids", "epochs"))
    assert sorted(zip(epochs, ids)) == [(epoch, id) for epoch in range(8) for id in range(3)]


def test_the_number_of_threads_changes_nothing(tmp_path):
    put(tmp_path, *(f"{kind}/{i}.png" for kind in "ab" for i in range(5)))
    source = open_source(str(tmp_path), 20)
    alone, helped = (
        list(
            CpuLoader(source.train, 20, CPU, threads).training(ShuffledSampler(len(source.train), 1), 4, range(5), 0, 1)
        )
        for threads in (1, 3)
    )
    assert len(alone) == 5
    for one, other in zip(alone, helped, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other))
    repeats = [batch.images[batch.ids == 0][0] for batch in alone if (batch.ids == 0).any()]
    assert len(repeats) > 1 and not torch.equal(repeats[0], repeats[1])  # another crop in another epoch


def test_workers_read_what_one_would(tmp_path):
    put(tmp_path, *(f"{i}.png" for i in range(5)))
    source = open_source(str(tmp_path), 16)

    def batches(rank, world):
        options = dict(batch=7, steps=range(2, 4), seed=3, device=CPU, threads=1)
        return list(training_batches(source, rank=rank, world=world, **options)[1])

    for whole, *parts in zip(batches(0, 1), *(batches(rank, 3) for rank in range(3))):
        for field, pieces in zip(whole, zip(*parts)):
            assert torch.equal(field, torch.cat(pieces))


def test_memory_follows_the_order():
    split, order = arrays(10, 16), ShuffledSampler(10, 4)
    batches = list(ArrayLoader(split, CPU).training(order, 7, range(5), 1, 2))
    for step, batch in enumerate(batches):
        ids, epochs = order.at(batch_positions(step, 7, 1, 2))
        assert batch.ids.tolist() == ids.tolist() and batch.epochs.tolist() == epochs.tolist()
        assert torch.equal(batch.images, torch.from_numpy(split.images[ids]))
        assert batch.labels.tolist() == split.labels[ids].tolist()
        assert batch.weights.tolist() == [1.0] * 3


def test_threads_that_meet_new_shards_read_their_own_bytes(tmp_path):
    """Of two that open a shard at once one has a file that nothing else holds."""
    for number in range(40):
        (tmp_path / f"{number}.tar").write_bytes(bytes([number]) * 64)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for turn in range(20):
            shards = [Shard(tmp_path / f"{number}.tar", str(turn)) for number in range(40)]
            with ThreadPoolExecutor(8) as pool:
                read = list(pool.map(lambda shard: shard.read(64, 0), [shard for shard in shards for _ in range(4)]))
            assert read == [bytes([number]) * 64 for number in range(40) for _ in range(4)]
    finally:
        sys.setswitchinterval(before)
