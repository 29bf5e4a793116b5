"""Decides what is computed: which stage of which encoder, of which images, in which parts."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from jobs.config.recipe import resolve_data_path
from jobs.config.runtime import RuntimeConfig
from jobs.embedding.formats import FORMATS
from jobs.embedding.parts import Embedding, load_encoder
from jobs.embedding.record import EmbeddingRecord
from jobs.embedding.rows import ALL, select_images
from jobs.pretraining.run import decode_threads
from ssl_core.data.dataset import Source, open_source
from ssl_core.encoders.pixel_encoder import PixelEncoder
from ssl_core.encoders.pretrained import Pretrained, with_place
from ssl_core.errors import UserError
from ssl_core.evaluation.stage_features import LAST, Pool, StageFeatures, choose_stage
from ssl_core.storage.files import is_local, open_path
from ssl_core.storage.object_store import is_url

PARTS = ".parts"  # added to the name of a file, for the folder of its parts
PART_BYTES = 64 * 2**20  # of the features of a part, at most, unless one image has more


@dataclass(frozen=True, kw_only=True)
class EmbeddingConfig:
    """Says which features of which images are computed; with the encoder and the dataset, they determine the bytes."""

    size: int | None = None
    """side in pixels that images are resized to; default: the dataset's own"""
    split: Literal["all", "train", "test", "unlabeled"] = ALL
    """images: all, train (where there are labels, those with one), test, or unlabeled (training images without one)"""
    stage: int | str = LAST
    """stage of the encoder: 1, 2, …, shallow to deep; last: the deepest map; cls: a vision transformer's class token"""
    pool: Pool = "mean"
    """mean: of the stage's map over all places
    2x2: of each quarter, flattened
    map: all of it, flattened"""
    normalization: Literal["encoder", "dataset", "image"] = "encoder"
    """how pixels are standardized
    encoder: as the encoder was trained
    dataset: by the dataset's statistics
    image: each image by its own"""
    batch: int = 128
    """images that are computed at once"""
    shard: int = 4096
    """images of a part, which is what a killed command loses at most; fewer where their features are large"""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Holds what is computed, and the file that it becomes.

    Attributes:
        embedding: What is computed.
        source: The dataset.
        encoder: What was loaded.
        output: The file.
        workers: 0 for this process, else how many parts Ray computes at once.
    """

    embedding: Embedding
    source: Source
    encoder: Pretrained
    output: Path
    workers: int

    @property
    def folder(self) -> Path:
        """Returns the folder of the parts."""
        return open_path(self.embedding.folder)


def make_plan(spec: str, data: str, output: str, config: EmbeddingConfig, runtime: RuntimeConfig) -> Plan:
    """Loads the encoder, opens the dataset and decides what is computed. Nothing is written.

    Args:
        spec: The encoder, as --encoder of `tilespin evaluate` takes it.
        data: The dataset, as --data takes it.
        output: The file or URL to write.
        config: Which features of which images.
        runtime: Workers, device and decoding threads.

    Raises:
        UserError: If the encoder, the dataset, the file or an option cannot be used.
    """
    file = _check_output(output)
    for name, value in (("batch", config.batch), ("shard", config.shard)):
        if value < 1:
            raise UserError(f"--{name} is {value}, expected at least 1")
    workers, device = runtime.worker_range.max, runtime.resolved_device()
    spec, data = with_place(spec, _absolute), resolve_data_path(data)
    load_encoder.cache_clear()  # its file may be another one by now
    encoder, source = load_encoder(spec), open_source(data, config.size)
    one, normalization = encoder.one, config.normalization
    if normalization != "encoder":
        one = replace(one, normalization=normalization, mean=source.mean, std=source.std)
    stage = choose_stage(encoder.network, one.architecture, source.size, str(config.stage))
    blank = torch.zeros(1, source.size, source.size, 3, dtype=torch.uint8)
    width = StageFeatures(PixelEncoder(one, encoder.network).eval(), stage, config.pool)(blank).shape[1]
    record = EmbeddingRecord(
        encoder=one.label,
        architecture=one.architecture,
        encoder_digest=encoder.digest,
        stage=stage,
        pool=config.pool,
        normalization=one.normalization,
        mean=tuple(one.mean),
        std=tuple(one.std),
        width=width,
        data=source.name,
        data_digest=source.digest,
        classes=source.classes,
        size=source.size,
        split=config.split,
        images=len(select_images(source, config.split)),
        batch=config.batch,
        shard=max(1, min(config.shard, PART_BYTES // (4 * width))),
    )
    embedding = Embedding(
        spec=spec,
        data=data,
        size=config.size,
        record=record,
        folder=f"{file}{PARTS}",
        device=device,
        threads=1 if workers else len(os.sched_getaffinity(0)),
        decode_threads=decode_threads(runtime, source),
    )
    return Plan(embedding=embedding, source=source, encoder=one, output=file, workers=workers)


def _check_output(output: str) -> Path:
    """Returns the file to write. Raises UserError if its name ends with no format, or it is a folder."""
    file = open_path(output, "--output")
    if file.suffix not in FORMATS:
        raise UserError(f"--output {output}: expected a name that ends with {', '.join(FORMATS)}")
    if is_local(file) and file.exists() and not file.is_file():
        raise UserError(f"--output {output} is {'a folder' if file.is_dir() else 'no plain file'}")
    return file


def _absolute(place: str) -> str:
    return place if is_url(place) else str(open_path(place, "--encoder"))
