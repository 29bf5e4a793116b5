"""What only a GPU can show of the loaders: the same crops as on a CPU, on another stream, in bounded memory."""

import numpy as np
import pytest
import torch
from PIL import Image
from support.loaders import KINDS, each_kind
from support.synthetic_images import gradients

from ssl_core.data.batch import Batch
from ssl_core.data.dataset import Files
from ssl_core.data.loaders.cpu import CpuLoader
from ssl_core.data.loaders.cuda_stream import prefetch_on_stream
from ssl_core.data.loaders.select import prefetched
from ssl_core.data.sampler import ShuffledSampler

pytestmark = pytest.mark.gpu
COUNT, BATCH, SIZE, EPOCHS = 48, 12, 64, 50
STEPS, DEVICE = COUNT // BATCH, torch.device("cuda")
BUSY = 50_000_000  # clock cycles, so some 25 ms, that a stream is kept busy for


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Files:
    root = tmp_path_factory.mktemp("jpegs")
    paths = [root / f"{number:02d}.jpg" for number in range(COUNT)]
    for image, path in zip(gradients(COUNT, 100).numpy(), paths):
        Image.fromarray(image).save(path, quality=95)
    paths[5].write_bytes(b"broken")
    return Files(paths, np.arange(COUNT))


def stream(kind, files: Files, device: str, steps: range):
    made = kind(files, SIZE, torch.device(device), 2, lambda said: None)
    return prefetched(made.training(ShuffledSampler(COUNT, 0), BATCH, steps, 0, 1), made, torch.device(device))


@each_kind
def test_crops_are_those_of_the_cpu(files, kind):
    there = stream(kind, files, "cuda", range(2 * STEPS))
    for here, batch in zip(stream(CpuLoader, files, "cpu", range(2 * STEPS)), there, strict=True):
        assert all(field.is_cuda for field in batch)
        assert all(torch.equal(a, b.cpu()) for a, b in zip(here[1:], batch[1:]))
        off = (here.images.int() - batch.images.cpu().int()).abs()
        # a GPU's JPEG decoder upsamples colors in another way
        assert off.float().mean() < 3 if kind.__name__ == "DaliLoader" else not off.any()


def numbered(count: int, busy: bool):
    """Batches of which every byte is the batch's number, written by a stream that is busy before."""
    for number in range(count):
        if busy:
            torch.cuda._sleep(BUSY)
        field = torch.full((2**20,), number, dtype=torch.uint8, device=DEVICE)
        yield Batch(*[field.clone() for _ in Batch._fields])


def test_a_batch_is_read_when_it_is_written():
    for number, batch in enumerate(prefetch_on_stream(numbered(5, busy=True), DEVICE, 2)):
        assert all((field == number).all() for field in batch)


def test_a_batch_stays_as_it_is_while_a_step_that_is_late_reads_it():
    batches = prefetch_on_stream(numbered(20, busy=False), DEVICE, 2)
    torch.cuda._sleep(BUSY)
    copies = [next(batches).images.clone() for _ in range(20)]  # queued behind the sleep; the batch itself is dropped
    assert all((copy == number).all() for number, copy in enumerate(copies))


@pytest.mark.parametrize("kind", KINDS)
def test_memory_stays_flat(files, kind):
    for step, batch in enumerate(stream(kind, files, "cuda", range(EPOCHS * STEPS)), start=1):
        assert len(batch.ids) >= BATCH - 1
        if step == 3 * STEPS:
            free = torch.cuda.mem_get_info()[0]
    total = torch.cuda.mem_get_info()[1]
    assert step == EPOCHS * STEPS and free - torch.cuda.mem_get_info()[0] < 0.05 * (total - free)
