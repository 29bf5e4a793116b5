"""Fifty epochs take no more memory than three, so that a run of weeks does not end for want of it."""

import gc
import itertools
import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from support.jpegs import jpeg
from support.loaders import each_kind
from support.sources import each_plain_source, store
from support.synthetic_images import arrays, gradients

from ssl_core.data.loaders.arrays import ArrayLoader
from ssl_core.data.sampler import Sampler, ShuffledSampler, make_sampler
from ssl_core.data.split import Split

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
EPOCHS, COUNT, BATCH = 50, 40, 8
SIZE = 128  # an epoch's pixels are 2 MB: kept for 47 epochs they would show
STEPS, ORDER = COUNT // BATCH, ShuffledSampler(COUNT, 0)


def resident() -> int:
    """Bytes of this process's memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="module")
def stored(request, tmp_path_factory) -> Split:
    place, images = tmp_path_factory.mktemp("stored"), {}
    for number, image in enumerate(gradients(COUNT, 100).numpy()):
        images[f"{number:02d}.jpg"] = jpeg(Image.fromarray(image))
    images["03.jpg"] = b"broken"  # and its warning is not kept again and again
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TILESPIN_CACHE", str(place / "cache"))
        yield store(request.param, place, images)


def order_of(loader) -> Sampler:
    return ORDER if isinstance(loader, ArrayLoader) else make_sampler(loader.split, 0)


def anew(loader):
    """A stream of batches for each epoch, as commands that are stopped and continued would have."""
    order = order_of(loader)
    return (loader.training(order, BATCH, range(e * STEPS, (e + 1) * STEPS), 0, 1) for e in range(EPOCHS))


def at_once(loader):
    """One stream, an epoch at a time."""
    stream = loader.training(order_of(loader), BATCH, range(EPOCHS * STEPS), 0, 1)
    return (itertools.islice(stream, STEPS) for _ in range(EPOCHS))


def check_flat(epochs, count: int) -> None:
    for number, batches in enumerate(epochs, start=1):
        assert sum(len(batch.ids) for batch in batches) == count
        if number == 3:
            before = resident()
    assert number == EPOCHS and abs(resident() - before) < 0.05 * before, (before, resident())


@each_kind
@each_plain_source
@pytest.mark.parametrize("epochs", [anew, at_once])
def test_from_every_source(stored, epochs, kind):
    check_flat(epochs(kind(stored, SIZE, CPU, 2, lambda said: None)), COUNT - 1)


@pytest.mark.parametrize("epochs", [anew, at_once])
def test_from_memory(epochs):
    check_flat(epochs(ArrayLoader(arrays(COUNT, SIZE), CPU)), COUNT)
