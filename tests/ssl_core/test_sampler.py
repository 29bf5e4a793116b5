"""What the endless order promises, for any size, seed and number of workers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_core.data.dataset import Packed
from ssl_core.data.remote import RemoteShard
from ssl_core.data.sampler import ShardSampler, ShuffledSampler, batch_positions, make_sampler
from ssl_core.storage.object_store import Object

sizes = st.integers(1, 5000)
seeds = st.integers(0, 2**31 - 1)
quickly = settings(max_examples=60, deadline=None)


@quickly
@given(n=sizes, seed=seeds, epoch=st.integers(0, 10**6))
def test_each_epoch_meets_each_image_once(n, seed, epoch):
    ids, epochs = ShuffledSampler(n, seed).at(np.arange(epoch * n, (epoch + 1) * n))
    assert (np.sort(ids) == np.arange(n)).all()
    assert (epochs == epoch).all()


@quickly
@given(step=st.integers(0, 10**6), batch=st.integers(1, 600), world=st.integers(1, 40))
def test_workers_share_every_batch(step, batch, world):
    slices = [batch_positions(step, batch, rank, world) for rank in range(world)]
    assert (np.concatenate(slices) == np.arange(step * batch, (step + 1) * batch)).all()
    assert max(map(len, slices)) - min(map(len, slices)) <= 1


@quickly
@given(n=sizes, seed=seeds, start=st.integers(0, 3000))
def test_the_stream_is_the_same_from_any_start(n, seed, start):
    whole = ShuffledSampler(n, seed).at(np.arange(start + 50))
    tail = ShuffledSampler(n, seed).at(np.arange(start, start + 50))
    for all_of_it, end in zip(whole, tail):
        assert (all_of_it[start:] == end).all()


@quickly
@given(n=st.integers(50, 5000), seed=seeds, epoch=st.integers(0, 10**6))
def test_epochs_and_seeds_are_shuffled_differently(n, seed, epoch):
    positions = np.arange(epoch * n, (epoch + 1) * n)
    here = ShuffledSampler(n, seed).at(positions)[0]
    assert (here != ShuffledSampler(n, seed).at(positions + n)[0]).any()
    assert (here != ShuffledSampler(n, seed + 1).at(positions)[0]).any()
    assert (here != np.arange(n)).any()


def test_every_image_comes_equally_often_in_every_place():
    n, epochs = 7, 7000
    ids = ShuffledSampler(n, 3).at(np.arange(n * epochs))[0].reshape(epochs, n)
    counts = np.stack([np.bincount(ids[:, place], minlength=n) for place in range(n)])
    spread = (epochs / n * (1 - 1 / n)) ** 0.5
    assert np.abs(counts - epochs / n).max() < 5 * spread


# Shards that have to be fetched

shards = st.lists(st.integers(1, 90), min_size=1, max_size=40)
windows = st.integers(1, 12)


def shard_of(order: ShardSampler, ids: np.ndarray) -> np.ndarray:
    return np.searchsorted(np.cumsum(order.counts), ids, "right")


@quickly
@given(counts=shards, window=windows, seed=seeds, epoch=st.integers(0, 10**6))
def test_windowed_each_epoch_meets_each_image_once(counts, window, seed, epoch):
    n = sum(counts)
    ids, epochs = ShardSampler(tuple(counts), seed, window).at(np.arange(epoch * n, (epoch + 1) * n))
    assert (np.sort(ids) == np.arange(n)).all() and (epochs == epoch).all()


@quickly
@given(
    counts=shards,
    window=windows,
    seed=seeds,
    start=st.integers(0, 3000),
    batch=st.integers(1, 120),
    attempts=st.lists(st.integers(1, 9), min_size=1, max_size=6),
)
@pytest.mark.slow
def test_windowed_the_stream_is_the_same_for_any_workers_and_restarts(counts, window, seed, start, batch, attempts):
    order = ShardSampler(tuple(counts), seed, window)
    whole = order.at(np.arange(start * batch, (start + len(attempts)) * batch))
    parts = [
        order.at(batch_positions(start + step, batch, rank, world))
        for step, world in enumerate(attempts)
        for rank in range(world)
    ]
    for all_of_it, pieces in zip(whole, zip(*parts)):
        assert (np.concatenate(pieces) == all_of_it).all()
    scattered = np.random.default_rng(0).permutation(len(whole[0]))
    assert (order.at(start * batch + scattered)[0] == whole[0][scattered]).all()


@quickly
@given(counts=shards, window=windows, seed=seeds, epoch=st.integers(0, 1000))
def test_a_window_touches_its_shards_alone_and_all_of_them(counts, window, seed, epoch):
    order = ShardSampler(tuple(counts), seed, window)
    positions = np.arange(epoch * order.n, (epoch + 1) * order.n)
    touched, first = shard_of(order, order.at(positions)[0]), 0
    told = order.windows(positions)
    assert told == [(epoch, number) for number in range(-(-len(counts) // window))]
    for place, number in told:
        ahead = order.shards(place, number)
        size = sum(counts[shard] for shard in ahead)
        assert len(ahead) <= window and set(touched[first : first + size].tolist()) == set(ahead)
        assert order.windows(positions[first : first + size]) == [(place, number)]
        first += size
    assert first == order.n
    assert order.shards(epoch, len(told)) == order.shards(epoch + 1, 0)


def test_windowed_epochs_and_seeds_are_shuffled_differently():
    order = ShardSampler((50,) * 20, 3)
    positions = np.arange(order.n)
    here = order.at(positions)[0]
    for other in (order.at(positions + order.n)[0], ShardSampler((50,) * 20, 4).at(positions)[0]):
        assert (here != other).mean() > 0.9
        assert order.shards(0, 0) != shard_of(order, other[:1]).tolist()
    assert len(set(shard_of(order, here[:64]).tolist())) == 8, "the images of a window are mixed"
    places = []
    for number, start in enumerate((0, 400)):
        rank = {shard: place for place, shard in enumerate(order.shards(0, number))}
        ids = here[start : start + 400]
        places.append(np.array([rank[shard] * 50 for shard in shard_of(order, ids).tolist()]) + ids % 50)
    assert (places[0] != places[1]).mean() > 0.9, "each in its own way"


@pytest.mark.slow
def test_every_shard_and_image_comes_equally_often_in_every_place():
    order, epochs = ShardSampler((2, 1, 3), 5, 2), 3000
    ids = order.at(np.arange(order.n * epochs))[0].reshape(epochs, order.n)
    firsts = np.bincount(shard_of(order, ids[:, 0]), minlength=3)
    counts = np.array([2, 1, 3])
    pairs = [(a, b) for a in range(3) for b in range(3) if a != b]
    expected = sum(np.bincount([a, b], [counts[a], counts[b]], 3) / (counts[a] + counts[b]) for a, b in pairs) / 6
    assert np.abs(firsts / epochs - expected).max() < 5 * (0.25 / epochs) ** 0.5
    inside = np.bincount(ids[:, 0][shard_of(order, ids[:, 0]) == 2] - 3, minlength=3)
    assert np.abs(inside / inside.sum() - 1 / 3).max() < 5 * (0.25 / inside.sum()) ** 0.5


def test_only_shards_that_are_fetched_are_windowed():
    places = np.array([[shard, 0, 1, 0] for shard in (3, 3, 4, 5, 5, 5)])
    shards = tuple(RemoteShard(Object(f"s3://b/{number}.tar", 9, "1")) for number in range(7))
    near, far = (Packed("train", shards, places, np.zeros(6, np.int64), windowed) for windowed in (False, True))
    assert make_sampler(near, 7) == ShuffledSampler(6, 7)
    assert make_sampler(far, 7) == ShardSampler((2, 1, 3), 7)
    assert [one.file for one in far.fetched_shards()] == list(shards[3:6])
