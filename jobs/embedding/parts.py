"""Computes the features of a part of a dataset's images, as a job that may run on another machine."""

import io
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

import ssl_core.encoders.build as encoders
from cluster.heartbeat import current
from jobs.embedding.record import EmbeddingRecord, PartRecord
from jobs.embedding.rows import select_images
from ssl_core.data.batch import Batch
from ssl_core.data.dataset import Source, open_source
from ssl_core.data.loaders.select import evaluation_batches
from ssl_core.encoders.pixel_encoder import PixelEncoder
from ssl_core.encoders.pretrained import Pretrained, load_pretrained
from ssl_core.errors import UserError
from ssl_core.evaluation.stage_features import StageFeatures
from ssl_core.storage.files import open_path, write_bytes


class LoadedEncoder(NamedTuple):
    """Holds an encoder, what it is, and the digest of its weights."""

    one: Pretrained
    network: nn.Module
    digest: str


@lru_cache(maxsize=1)
def load_encoder(spec: str) -> LoadedEncoder:
    """Loads an encoder, once in a process; raises what `load_pretrained` raises."""
    one = load_pretrained(spec)
    network = one.network()
    return LoadedEncoder(one, network.eval(), encoders.digest(network))


@dataclass(frozen=True)
class Embedding:
    """Says what is computed and where, on whatever machine.

    Attributes:
        spec: The encoder, as --encoder takes it; paths are absolute.
        data: The dataset, as --data takes it; paths are absolute.
        size: The images' side as it was asked for; None for the dataset's own.
        record: What the features are of.
        folder: The folder or URL of the parts.
        device: "cuda" or "cpu".
        threads: Batches that are computed at once on a CPU.
        decode_threads: Threads that decode images.
    """

    spec: str
    data: str
    size: int | None
    record: EmbeddingRecord
    folder: str
    device: str
    threads: int
    decode_threads: int

    def source(self) -> Source:
        """Opens the dataset. Raises UserError if it is not that of the record."""
        source = open_source(self.data, self.size)
        if source.digest != self.record.data_digest:
            raise UserError(f"--data {self.data} has changed since this began")
        return source

    def model(self) -> StageFeatures:
        """Loads the encoder, on the device. Raises UserError if it is not that of the record."""
        encoder, record = load_encoder(self.spec), self.record
        if encoder.digest != record.encoder_digest:
            raise UserError(f"{self.spec} is another encoder on this machine, or has changed since this began")
        one = replace(encoder.one, normalization=record.normalization, mean=record.mean, std=record.std)
        model = StageFeatures(PixelEncoder(one, encoder.network), record.stage, record.pool)
        return model.eval().to(self.device)


def features_file(folder: Path, number: int) -> Path:
    """Returns the file of a part's features, [n, d] float32 as NumPy writes it."""
    return folder / f"part-{number:06d}.npy"


def record_file(folder: Path, number: int) -> Path:
    """Returns the file of a part's record."""
    return folder / f"part-{number:06d}.json"


def compute_part(embedding: Embedding, number: int) -> PartRecord:
    """Computes the features of a part, and writes them and then their record.

    Batches are the same whoever computes the part, and each is computed by one thread, since sums of floating-point
    numbers depend on how many threads share them.

    Args:
        embedding: What is computed.
        number: Of the part.

    Raises:
        UserError: If the encoder or the dataset is another one than when this began.
        Diverged: If features are not finite.
    """
    source, model, record = embedding.source(), embedding.model(), embedding.record
    ids = select_images(source, record.split)[number * record.shard : (number + 1) * record.shard]
    features, skipped, done = np.empty((len(ids), record.width), np.float32), [], 0

    def compute(batch: Batch) -> np.ndarray:
        good = batch.weights > 0
        return model(batch.images[good]).cpu().numpy() if good.any() else np.empty((0, record.width), np.float32)

    batches = _batches(source, ids, embedding)
    with _lone_threads(embedding.threads if embedding.device == "cpu" else 1) as pool:
        waiting: deque[tuple[np.ndarray, Future[np.ndarray]]] = deque()
        while True:
            while len(waiting) <= embedding.threads and (read := next(batches, None)) is not None:
                waiting.append((read[0], pool.submit(compute, read[1])))
            if not waiting:
                break
            failed, computed = waiting.popleft()
            found = computed.result()
            features[done : done + len(found)] = found
            skipped += failed.tolist()
            done += len(found)
            current().report({"images": done + len(skipped)})
    file, folder = io.BytesIO(), open_path(embedding.folder)
    np.save(file, features[:done], allow_pickle=False)
    write_bytes(features_file(folder, number), file.getbuffer())
    part = PartRecord(images=done, skipped=tuple(skipped))
    part.write(record_file(folder, number))
    return part


def _batches(source: Source, ids: np.ndarray, embedding: Embedding) -> Iterator[tuple[np.ndarray, Batch]]:
    """Reads images, and yields the numbers of those that cannot be decoded, [k] int64, with each batch."""
    first_test = len(source.train)
    device, threads, most = torch.device(embedding.device), embedding.decode_threads, embedding.record.batch
    for part, start in (("train", 0), ("test", first_test)):
        numbers = ids[ids < first_test] if part == "train" else ids[ids >= first_test]
        if len(numbers):  # as a dataset of their own: arrays are copied to the device
            own = replace(source, train=getattr(source, part).subset(numbers - start))
            for batch in evaluation_batches(own, "train", np.arange(len(numbers)), device, threads, most):
                yield numbers[batch.ids[batch.weights == 0].cpu().numpy()], batch


@contextmanager
def _lone_threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Provides threads in each of which torch uses no other."""
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, "embeds", initializer=partial(torch.set_num_threads, 1))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)  # what threads that are started later begin with
