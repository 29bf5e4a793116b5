"""Every image exactly once an epoch, whatever crashes, reads ahead or changes its number of workers on the way."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import parquet_files
from support.loaders import each_kind
from support.sources import each_source, store
from support.tar_files import picture

from kernels.random import RandomBits
from ssl_core.data.batch import Batch
from ssl_core.data.dataset import Arrays
from ssl_core.data.loaders.arrays import ArrayLoader
from ssl_core.data.loaders.base import EncodedLoader
from ssl_core.data.loaders.cpu import CpuLoader
from ssl_core.data.parquet_scan import scan_cached
from ssl_core.data.parquet_shards import local_object
from ssl_core.data.sampler import Sampler, ShuffledSampler, make_sampler
from ssl_core.data.sources.parquet import ParquetImages
from ssl_core.data.split import Split

CPU = torch.device("cpu")
MOST = 200  # images in memory
MOST_STORED = 7  # and on a disk


@dataclass(frozen=True)
class Attempt:
    """A stretch of training between two crashes."""

    workers: int
    steps: int  # taken before the crash
    lost: int  # of them, those after the last checkpoint: they are taken again
    ahead: int  # batches that the loaders had read beyond the crash


@dataclass(frozen=True)
class Schedule:
    n: int
    batch: int
    steps: int
    seed: int
    attempts: list[Attempt]  # the last one runs to the end


@st.composite
def schedules(draw, most: int = MOST, steps: int = 40) -> Schedule:
    batch = draw(st.integers(1, 32))
    attempt = st.builds(
        Attempt,
        workers=st.integers(1, min(8, batch)),
        steps=st.integers(0, steps // 2),
        lost=st.integers(0, 12),
        ahead=st.integers(0, 3),
    )
    return Schedule(
        draw(st.integers(1, most)),
        batch,
        draw(st.integers(1, steps)),
        draw(st.integers(0, 2**32 - 1)),
        draw(st.lists(attempt, min_size=1, max_size=3)),
    )


def joined(parts) -> Batch:
    return Batch(*map(torch.cat, zip(*parts)))


def survivors(
    schedule: Schedule, loader: Callable[[], ArrayLoader | CpuLoader], order: Sampler | None = None
) -> list[Batch]:
    """The global batch of each step as it was last taken; a loader for every worker of every attempt."""
    order, done, kept = order or ShuffledSampler(schedule.n, schedule.seed), 0, {}
    for number, attempt in enumerate(schedule.attempts):
        crashes = number < len(schedule.attempts) - 1
        stop = min(schedule.steps, done + attempt.steps) if crashes else schedule.steps
        streams = [
            loader().training(order, schedule.batch, range(done, schedule.steps), rank, attempt.workers)
            for rank in range(attempt.workers)
        ]
        for step in range(done, stop):
            parts = [next(stream) for stream in streams]
            sizes = [len(part.ids) for part in parts]
            assert max(sizes) - min(sizes) <= 1 and sum(sizes) == schedule.batch
            kept[step] = joined(parts)
        for stream in streams:
            left = list(itertools.islice(stream, attempt.ahead if crashes else 1))
            assert crashes or not left, "a stream ends with its last step"
        done = max(0, stop - attempt.lost) if crashes else stop
    return [kept[step] for step in range(schedule.steps)]


def check_each_once(schedule: Schedule, batches: list[Batch]) -> None:
    total, whole = schedule.steps * schedule.batch, joined(batches)
    assert (whole.weights == 1).all()
    ids, epochs = whole.ids.numpy(), whole.epochs.numpy()
    assert np.array_equal(epochs, np.arange(total) // schedule.n), "every position from 0 on, once and in order"
    complete = total // schedule.n
    rows = np.sort(ids[: complete * schedule.n].reshape(complete, schedule.n))
    assert (rows == np.arange(schedule.n)).all(), "every image once in each complete epoch"
    rest = ids[complete * schedule.n :]
    assert len(set(rest.tolist())) == len(rest), "and none twice in the last"


def words(batch: Batch, seed: int) -> torch.Tensor:
    return RandomBits(batch.ids, batch.epochs, seed).draw("crop", 3)


SPLIT = Arrays(np.arange(MOST * 12, dtype=np.uint32).astype(np.uint8).reshape(MOST, 2, 2, 3), np.arange(MOST))
MEMORY = ArrayLoader(SPLIT, CPU)


@settings(max_examples=500, derandomize=True, deadline=None, database=None)
@given(schedules(steps=20))
@pytest.mark.slow
def test_each_image_once_an_epoch_from_memory(schedule):
    batches = survivors(schedule, lambda: MEMORY)
    check_each_once(schedule, batches)
    one = joined(batches)
    ids, epochs = ShuffledSampler(schedule.n, schedule.seed).at(np.arange(schedule.steps * schedule.batch))
    assert np.array_equal(one.ids, ids) and np.array_equal(one.epochs, epochs), "in the same order whatever the workers"
    assert np.array_equal(one.images, SPLIT.images[ids]) and np.array_equal(one.labels, ids)
    backwards = torch.arange(len(one.ids) - 1, -1, -1)
    turned = words(Batch(*(field[backwards] for field in one)), schedule.seed)
    assert torch.equal(words(one, schedule.seed), turned[backwards]), "the same draws wherever in whatever batch"


@pytest.fixture(scope="module")
def stored(request, tmp_path_factory) -> Split:
    """Seven images in a source of each kind."""
    place = tmp_path_factory.mktemp("stored")
    images = {f"{number}.png": picture(number) for number in range(MOST_STORED)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TILESPIN_CACHE", str(place / "cache"))
        yield store(request.param, place, images)


@pytest.fixture(scope="module")
def crops(stored) -> dict:
    """(image, epoch, seed) -> the pixels that it was first delivered with."""
    return {}


def check_crops(schedule: Schedule, batches: list[Batch], crops: dict) -> None:
    for batch in batches:
        for image, id, epoch in zip(batch.images, batch.ids.tolist(), batch.epochs.tolist()):
            first = crops.setdefault((id, epoch, schedule.seed), image)
            assert torch.equal(image, first), "an image's crop hangs on the seed, the epoch and itself alone"


def check_stored(split: Split, crops: dict, schedule: Schedule, kind=CpuLoader, threads: int = 1) -> None:
    """Checks the images of a schedule, with crashes and without."""
    split = split.subset(np.arange(schedule.n))
    order = make_sampler(split, schedule.seed)
    alone = Schedule(schedule.n, schedule.batch, schedule.steps, schedule.seed, [Attempt(1, 0, 0, 0)])
    for one in (schedule, alone):
        batches = survivors(one, lambda: kind(split, 12, CPU, threads), order)
        check_each_once(one, batches)
        check_crops(one, batches, crops)


@settings(max_examples=40, derandomize=True, deadline=None, database=None)
@given(schedule=schedules(most=MOST_STORED, steps=6))
@each_source
@pytest.mark.slow
def test_each_image_once_an_epoch_from_every_source(stored, crops, schedule):
    check_stored(stored, crops, schedule)


class Bytes(EncodedLoader):
    """Reads images without decoding them: each is as many pixels as its file says."""

    def read(self, requests):
        for wanted in requests:
            numbers = [int(self.split.open(id).read()) for id in wanted.ids.tolist()]
            yield self.batch(wanted, torch.tensor(numbers), {})


@pytest.fixture(scope="module")
def sharded(tmp_path_factory) -> Split:
    """31 numbers, as if they were images, in 13 Parquet shards, more than a window has, and row groups of 1 to 3."""
    place, start = tmp_path_factory.mktemp("sharded"), 0
    for number in range(13):
        count = 1 + number * 5 % 4
        images = [str(i).encode() for i in range(start, start + count)]
        parquet_files.write(place / f"{number:02d}.parquet", images, groups=1 + number % 3)
        start += count
    files = [local_object(path) for path in sorted(place.iterdir())]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TILESPIN_CACHE", str(place / "cache"))
        shards = scan_cached(files, None).shards
        rows = [(i, row, 0) for i, shard in enumerate(shards) for row in range(shard.rows)]
        offsets = np.concatenate([np.array(rows), np.arange(start)[:, None]], 1)
        yield ParquetImages("train", shards, offsets, np.arange(start), windowed=True)


def check_sharded(sharded: Split, schedule: Schedule) -> None:
    schedule = replace(schedule, n=len(sharded))
    order = make_sampler(sharded, schedule.seed)
    batches = survivors(schedule, lambda: Bytes(sharded, 8, CPU, 1), order)
    check_each_once(schedule, batches)
    one = joined(batches)
    assert torch.equal(one.images, one.ids) and torch.equal(one.labels, one.ids)
    assert np.array_equal(one.ids, order.at(np.arange(schedule.steps * schedule.batch))[0])


@settings(max_examples=100, derandomize=True, deadline=None, database=None)
@given(schedule=schedules(steps=12))
@pytest.mark.slow
def test_each_image_once_an_epoch_from_shards_that_are_fetched(sharded, schedule):
    check_sharded(sharded, schedule)


@settings(max_examples=1000, deadline=None, database=None)
@given(schedule=schedules(steps=12))
@pytest.mark.faults
def test_each_image_once_through_a_thousand_other_schedules(sharded, schedule):
    """Others each time: a failure prints how to repeat it."""
    check_sharded(sharded, schedule)


@each_kind
@each_source
def test_what_was_read_ahead_of_a_crash_is_read_again(stored, kind):
    """Each loader has batches in hand when its worker dies."""
    schedule = Schedule(7, 5, 9, 1, [Attempt(2, 4, 1, 0), Attempt(1, 2, 0, 0), Attempt(3, 0, 0, 0)])
    check_stored(stored, {}, schedule, kind, 2)


def test_a_trillion_images_need_no_memory():
    n, began = 10**12, perf_counter()
    positions = np.concatenate([np.arange(1000) + start for start in (0, n // 2, n - 500, 10**6 * n)])
    ids, epochs = ShuffledSampler(n, 3).at(positions)
    assert perf_counter() - began < 60  # a permutation in memory would take hours
    assert ((ids >= 0) & (ids < n)).all() and set(epochs) == {0, 1, 10**6}
    assert len(set(zip(epochs.tolist(), ids.tolist()))) == len(positions)
    assert ids.max() > 0.99 * n and ids.min() < 0.01 * n
