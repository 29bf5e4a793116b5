"""What all loaders of encoded images have in common, in order, pixels and faults."""

import io
from functools import partial
from itertools import pairwise
from signal import SIGINT, pthread_kill
from threading import Event, Thread, main_thread
from time import perf_counter

import numpy as np
import pytest
import torch
from support.jpegs import CPU, SIDE, batches, jpeg, picture, put
from support.loaders import KINDS, each_kind

import ssl_core.data.loaders.select as loader
from ssl_core.data.dataset import Files
from ssl_core.data.decoding.decode import read_fast_path
from ssl_core.data.loaders.cpu import CpuLoader
from ssl_core.data.loaders.resident import ResidentLoader
from ssl_core.data.loaders.select import dali_installed
from ssl_core.data.sampler import ShuffledSampler
from ssl_core.errors import StorageError
from ssl_core.storage.retry import RetryDeadline


def test_of_images_that_need_not_shrink_memory_has_the_same_crops(jpegs):
    for one, other in zip(batches(CpuLoader, jpegs, SIDE), batches(ResidentLoader, jpegs, SIDE), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other))


@pytest.mark.parametrize("size", [16, 40, SIDE])
@each_kind
def test_crops_are_the_same_from_each_loader(jpegs, kind, size):
    """Up to where a shrunk image has its pixels, and to how DALI rounds."""
    for one, other in zip(batches(CpuLoader, jpegs, size), batches(kind, jpegs, size), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one[1:], other[1:]))
        assert (one.images.int() - other.images.int()).abs().float().mean() < 8
        wrong = one.images.roll(1, 0).int() - other.images.int()
        assert wrong.abs().float().mean() > 20


@each_kind
def test_slices_of_several_workers_make_one_batch(jpegs, kind):
    order, steps = ShuffledSampler(len(jpegs), 3), range(3, 20)
    whole = list(kind(jpegs, 16, CPU, 2).training(order, 7, steps, 0, 1))
    parts = zip(*(kind(jpegs, 16, CPU, 1).training(order, 7, steps, rank, 3) for rank in range(3)))
    for one, slices in zip(whole, parts, strict=True):
        for field, pieces in zip(one, zip(*slices)):
            assert torch.equal(field, torch.cat(pieces))


@each_kind
def test_a_stream_that_is_dropped_can_be_begun_again(jpegs, kind):
    made = kind(jpegs, 16, CPU, 2)
    first = [next(made.training(ShuffledSampler(len(jpegs), 0), 4, range(9), 0, 1)) for _ in range(3)]
    assert all(torch.equal(a.images, b.images) for a, b in pairwise(first))


WHOLE = jpeg(picture(60, 72))
TABLES = WHOLE.index(b"\xff\xdb")
FAULTY = WHOLE[:TABLES] + b"\xff\xfe" + WHOLE[TABLES + 2 :]  # the tables are a comment


@each_kind
def test_a_fault_costs_its_image_and_no_other(tmp_path, kind):
    """DALI fails on the whole batch, names nothing and takes down the batches that it had begun."""
    files, said = [jpeg(picture(60, 72, seed)) for seed in range(20)], []
    files[7] = FAULTY
    assert read_fast_path(partial(io.BytesIO, FAULTY)), "it looks whole"
    split = put(tmp_path, *files)
    met = batches(kind, split, 16, warn=said.append)
    expected = batches(CpuLoader, split, 16, warn=lambda said: None)
    ids = [id for batch in met for id in batch.ids[batch.weights > 0].tolist()]
    assert sorted(ids) == sorted(2 * [id for id in range(20) if id != 7])
    assert len(said) == 1 and "007.jpg" in said[0]
    for one, other in zip(expected, met, strict=True):
        assert torch.equal(one.ids, other.ids) and (one.images.int() - other.images.int()).abs().float().mean() < 8


@each_kind
def test_a_store_that_fails_ends_training_instead_of_costing_images(jpegs, kind):
    class Store(Files):
        def open(self, i):
            if i == 5:
                raise StorageError("the store is closed")
            return super().open(i)

    with pytest.raises(StorageError, match="the store is closed"):
        batches(kind, Store(jpegs.paths, jpegs.labels), 16)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.resident])
def test_who_interrupts_it_need_not_wait_for_a_store(jpegs, kind):
    class Store(Files):
        def open(self, i):
            if i == 5:
                waiting.set()
                RetryDeadline().sleep(600)
            return super().open(i)

    waiting = Event()
    seed = next(seed for seed in range(99) if 5 in ShuffledSampler(12, seed).at(np.arange(4, 8))[0])
    made = kind(Store(jpegs.paths, jpegs.labels), 16, CPU, 2)
    stream = loader.prefetched(made.training(ShuffledSampler(12, seed), 4, range(9), 0, 1), made, CPU)
    Thread(target=lambda: waiting.wait(60) and pthread_kill(main_thread().ident, SIGINT), daemon=True).start()
    began = perf_counter()
    with pytest.raises(KeyboardInterrupt):
        list(stream)
    assert waiting.is_set() and perf_counter() - began < 60


@pytest.mark.skipif(not dali_installed(), reason="DALI is not installed")
def test_dali_is_given_what_it_failed_on_only_once(tmp_path, monkeypatch):
    from ssl_core.data.loaders import dali

    real, built = dali.build_pipeline, []
    monkeypatch.setattr(dali, "build_pipeline", lambda *arguments: built.append(arguments) or real(*arguments))
    split = put(tmp_path, FAULTY, *(jpeg(picture(60, 72, seed)) for seed in range(9)))
    order, said = ShuffledSampler(10, 0), []
    met = list(dali.DaliLoader(split, 16, CPU, 2, said.append).training(order, 5, range(20), 0, 1))
    assert sum(len(batch.ids) for batch in met) == 90 and len(built) == 2 and len(said) == 1


@pytest.mark.skipif(not dali_installed(), reason="DALI is not installed")
def test_if_dali_fails_for_reasons_of_its_own_nothing_is_lost_and_it_is_said(jpegs, monkeypatch):
    from ssl_core.data.loaders import dali

    real, calls, said = dali._output, [], []

    def failing(pipeline):
        calls.append(pipeline)
        if len(calls) == 3:
            raise RuntimeError("Critical error in pipeline:\nno memory is left")
        return real(pipeline)

    monkeypatch.setattr(dali, "_output", failing)
    for one, other in zip(batches(CpuLoader, jpegs, SIDE), batches(dali.DaliLoader, jpegs, SIDE, warn=said.append)):
        assert torch.equal(one.ids, other.ids) and (one.weights == 1).all() and (other.weights == 1).all()
        assert (one.images.int() - other.images.int()).abs().max() < 8
    assert said == ["DALI failed on a batch, which is decoded without it: no memory is left"]
    assert len(set(map(id, calls))) == 2, "another pipeline goes on"
