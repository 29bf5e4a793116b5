"""Learns a dictionary of patches by k-means: a floor of a study, which needs no network and no gradients."""

import time
from dataclasses import dataclass
from typing import Any

import torch

import ssl_core.encoders.build as encoders
from jobs.config.recipe import short_hash
from jobs.config.runtime import RuntimeConfig, device_name
from jobs.config.study import StudyConfig
from jobs.pretraining.encoder_files import peak_bytes, write_weights
from jobs.pretraining.run import decode_threads
from jobs.study.folder import Study
from ssl_core.data.dataset import Source, open_source
from ssl_core.encoders.kmeans import ITERATIONS, learn_dictionary
from ssl_core.encoders.patch_dictionary import dictionary_name
from ssl_core.storage.files import exists, write_json
from ssl_core.storage.records import EncoderRecord, TrainingRecord

KMEANS = "kmeans"  # what it is called beside the tasks
VERSION = 1  # raise when the same options would give another dictionary


@dataclass(frozen=True, kw_only=True)
class DictionaryRun:
    """Describes the learning of a dictionary, ready to be handed to a worker.

    Attributes:
        study: The study's folder, or its URL.
        name: kmeans-<hash of all that decides the dictionary>.
        data: The images, as --data names them.
        size: Their side in pixels.
        centroids: How many patches the dictionary has.
        seed: Of every random draw.
        threads: Threads that decode images.
    """

    study: str
    name: str
    data: str
    size: int
    centroids: int
    seed: int
    threads: int

    @property
    def finished(self) -> bool:
        """Returns whether the dictionary is there."""
        return exists(Study(self.study).run(self.name) / "encoder.json")


def plan_dictionaries(config: StudyConfig, study: Study, runtime: RuntimeConfig) -> list[DictionaryRun]:
    """Returns a run for each seed of a study, or none where the study asks for no dictionary.

    Args:
        config: The study's options, with absolute paths.
        study: The study that keeps them.
        runtime: Where and how jobs run.

    Raises:
        UserError: If the images cannot be opened.
    """
    if not config.kmeans:
        return []
    source = open_source(config.pretrain.data, config.pretrain.size)
    return [
        DictionaryRun(
            study=str(study.root),
            name=f"{KMEANS}-{short_hash(_identity(source, config.kmeans, config.seed + i))}",
            data=config.pretrain.data,
            size=source.size,
            centroids=config.kmeans,
            seed=config.seed + i,
            threads=decode_threads(runtime, source),
        )
        for i in range(config.seeds)
    ]


def _identity(source: Source, centroids: int, seed: int) -> dict[str, Any]:
    """Returns all that a dictionary depends on."""
    return {
        "task": {"name": KMEANS},
        "encoder": dictionary_name(centroids),
        "dataset": source.digest,
        "size": source.size,
        "seed": seed,
        "recipe": VERSION,
    }


def learn(run: DictionaryRun, device: str) -> EncoderRecord:
    """Learns a dictionary and writes it as a training writes its encoder: encoder.json last.

    Args:
        run: What is learned.
        device: "cuda", "cuda:N" or "cpu".

    Returns:
        What encoder.json says.

    Raises:
        UserError: If none of the images can be decoded.
    """
    folder, source = Study(run.study).run(run.name), open_source(run.data, run.size)
    write_json(folder / "config.json", {**_identity(source, run.centroids, run.seed), "data": run.data})
    started, where = time.monotonic(), torch.device(device)
    learned = learn_dictionary(source, run.centroids, run.seed, where, run.threads)
    seconds = time.monotonic() - started
    write_weights(folder, learned.dictionary)
    record = EncoderRecord(
        encoder=dictionary_name(run.centroids),
        size=source.size,
        seed=run.seed,
        mean=source.mean,
        std=source.std,
        normalization="dataset",
        digest=encoders.digest(learned.dictionary),
        training=TrainingRecord(
            task=KMEANS,
            run=run.name,
            data=run.data,
            size=source.size,
            dataset=source.digest,
            steps=ITERATIONS,
            images=learned.images,
            macs=learned.macs,
            seconds=seconds,
            restarts=0,
            device=device_name(device),
            workers=1,
            device_hours=seconds / 3600,
            peak_bytes=peak_bytes(where),
            pretext={},
        ),
    )
    record.write(folder / "encoder.json")
    return record
