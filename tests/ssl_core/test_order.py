"""What the endless order promises, for any size, seed and number of workers."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_core.data.order import Order, slice_of

sizes = st.integers(1, 5000)
seeds = st.integers(0, 2**31 - 1)
quickly = settings(max_examples=60, deadline=None)


@quickly
@given(n=sizes, seed=seeds, epoch=st.integers(0, 10**6))
def test_each_epoch_meets_each_image_once(n, seed, epoch):
    ids, epochs = Order(n, seed).at(np.arange(epoch * n, (epoch + 1) * n))
    assert (np.sort(ids) == np.arange(n)).all()
    assert (epochs == epoch).all()


@quickly
@given(step=st.integers(0, 10**6), batch=st.integers(1, 600), world=st.integers(1, 40))
def test_workers_share_every_batch(step, batch, world):
    slices = [slice_of(step, batch, rank, world) for rank in range(world)]
    assert (np.concatenate(slices) == np.arange(step * batch, (step + 1) * batch)).all()
    assert max(map(len, slices)) - min(map(len, slices)) <= 1


@quickly
@given(n=sizes, seed=seeds, start=st.integers(0, 3000))
def test_the_stream_is_the_same_from_any_start(n, seed, start):
    whole = Order(n, seed).at(np.arange(start + 50))
    tail = Order(n, seed).at(np.arange(start, start + 50))
    for all_of_it, end in zip(whole, tail):
        assert (all_of_it[start:] == end).all()


@quickly
@given(n=st.integers(50, 5000), seed=seeds, epoch=st.integers(0, 10**6))
def test_epochs_and_seeds_are_shuffled_differently(n, seed, epoch):
    positions = np.arange(epoch * n, (epoch + 1) * n)
    here = Order(n, seed).at(positions)[0]
    assert (here != Order(n, seed).at(positions + n)[0]).any()
    assert (here != Order(n, seed + 1).at(positions)[0]).any()
    assert (here != np.arange(n)).any()


def test_every_image_comes_equally_often_in_every_place():
    n, epochs = 7, 7000
    ids = Order(n, 3).at(np.arange(n * epochs))[0].reshape(epochs, n)
    counts = np.stack([np.bincount(ids[:, place], minlength=n) for place in range(n)])
    spread = (epochs / n * (1 - 1 / n)) ** 0.5
    assert np.abs(counts - epochs / n).max() < 5 * spread
