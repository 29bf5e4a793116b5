"""Names the encoders that are evaluated: those of a study's runs, those added to it, and their baselines."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch

import ssl_core.encoders.build as encoders
from jobs.config.evaluation import TransferEntry
from jobs.config.start import load_start
from jobs.pretraining.dictionary import KMEANS, DictionaryRun
from jobs.pretraining.run import Training
from jobs.study.folder import Study
from ssl_core.data.dataset import Source, open_source
from ssl_core.encoders.patch_dictionary import dictionary_name
from ssl_core.encoders.pretrained import load_saved
from ssl_core.encoders.small import PIXELS
from ssl_core.storage.files import exists
from ssl_core.storage.records import EncoderIdentity, EncoderRecord
from ssl_core.task import task_name, tasks

RANDOM = "random-init"


@dataclass(frozen=True)
class EvaluatedEncoder(EncoderIdentity):
    """Is an encoder to be evaluated: a finished or planned run's, one from elsewhere, or a baseline."""

    @property
    def source(self) -> Source:
        """Opens the dataset that the encoder is evaluated on."""
        return open_source(self.data, self.size)

    @property
    def built(self) -> int:
        """Returns the images' side in pixels that decides the encoder's stem and position embeddings."""
        return self.stem or self.size

    @property
    def is_floor(self) -> bool:
        """Returns whether it is what tasks have to surpass, whatever a plug-in's task is called."""
        return self.task == RANDOM or encoders.is_floor(self.encoder)

    @property
    def short_label(self) -> str:
        """Returns a short name, which several encoders of a study may share."""
        if self.run:
            return self.run if self.step is None else f"{self.run}@{self.step}"
        return self.external or (self.task if self.normalization == "dataset" else f"{self.task}-per-image")

    @property
    def weights_name(self) -> tuple:
        """Returns what encoders of the same training on other datasets have in common, or of the same weights."""
        return self.task, self.encoder, self.run, self.external, self.seed, self.normalization, self._built_side

    @property
    def _built_side(self) -> int | None:
        """Returns the images' side that it is built for, or None for an encoder that is the same at any."""
        return self.built if self.encoder != PIXELS and encoders.depends_on_size(self.encoder) else None

    def load(self, study: Study) -> torch.nn.Module:
        """Builds the encoder with its weights, which lie in `study` unless they are random."""
        folder = self.folder(study)
        if not folder:
            return encoders.build(self.encoder, self.built, self.seed)
        encoder, record = load_saved(folder)
        given, wanted = (self.source.mean, self.source.std), (record.mean, record.std)
        if self.normalization == "dataset" and wanted != given:
            return encoders.RestandardizedEncoder(encoder, given, wanted)
        return encoder

    def folder(self, study: Study) -> Path | None:
        """Returns where its weights lie, or None for a baseline."""
        if self.run:
            return study.run(self.run) if self.step is None else study.run_at(self.run, self.step)
        return study.external(self.external) if self.external else None

    def digest(self, study: Study) -> str | None:
        """Returns a digest of the weights, or None while the run is not finished.

        That of an encoder from elsewhere includes the statistics that it brings along.
        """
        if not (folder := self.folder(study)):
            return _random_init_digest(self.encoder, self.built, self.seed)
        if not exists(folder / "encoder.json"):
            return None
        record = EncoderRecord.read(folder / "encoder.json")
        return digest_with_statistics(record.digest, record.mean, record.std) if self.external else record.digest

    def random_init(self, normalization: str) -> "EvaluatedEncoder":
        """Returns the same encoder at random initialization, under this normalization."""
        return replace(self, task=RANDOM, run=None, external=None, normalization=normalization, step=None)


@cache
def _random_init_digest(encoder: str, size: int, seed: int) -> str:
    return encoders.digest(encoders.build(encoder, size, seed))


def digest_with_statistics(digest: str, mean: Sequence[float], std: Sequence[float]) -> str:
    """Returns the sha256 of weights together with the statistics that their pixels are standardized by.

    The same weights under other statistics are another encoder.

    Args:
        digest: The digest of the weights.
        mean: The mean of each channel, of 255.
        std: The standard deviation of each channel, of 255.
    """
    return hashlib.sha256(json.dumps([digest, list(mean), list(std)]).encode()).hexdigest()


def from_run(record: EncoderRecord) -> EvaluatedEncoder:
    """Returns the encoder of a finished run."""
    assert record.training is not None  # which only encoders from elsewhere may lack
    trained = record.training
    one = EvaluatedEncoder(
        trained.task, record.encoder, trained.run, trained.data, trained.size, record.seed, record.normalization
    )
    return replace(one, stem=encoders.build_size(record.encoder, record.size, trained.size))


def from_training(one: Training) -> EvaluatedEncoder:
    """Returns the encoder that a planned run will leave."""
    recipe = one.recipe
    task = task_name(recipe.task)
    normalization = tasks()[task].normalization
    found = EvaluatedEncoder(task, recipe.encoder, one.name, recipe.data, recipe.size, recipe.seed, normalization)
    start = load_start(recipe.init)
    return replace(found, stem=encoders.build_size(recipe.encoder, start.built, recipe.size)) if start else found


def before_the_end(one: Training) -> list[EvaluatedEncoder]:
    """Returns the encoders that a planned run will keep before its last step."""
    return [replace(from_training(one), step=step) for step in one.evaluate_at]


def from_dictionary(one: DictionaryRun) -> EvaluatedEncoder:
    """Returns the dictionary of patches that a planned run will leave."""
    return EvaluatedEncoder(KMEANS, dictionary_name(one.centroids), one.name, one.data, one.size, one.seed, "dataset")


def on_datasets(trained: list[EvaluatedEncoder], transfer: Sequence[TransferEntry]) -> list[EvaluatedEncoder]:
    """Returns each encoder on each transfer dataset; without any, on what it was trained on.

    Args:
        trained: Encoders on what they were trained on.
        transfer: Datasets, each with its size.
    """
    if not transfer:
        return trained
    found = []
    for entry in transfer:
        size = entry.size or open_source(entry.data).size
        for one in trained:
            stem = encoders.build_size(one.encoder, one.built, size)
            found.append(replace(one, data=entry.data, size=size, stem=stem))
    return found


def with_baselines(runs: list[EvaluatedEncoder]) -> list[EvaluatedEncoder]:
    """Returns `runs` after their baselines: raw pixels, and each encoder at random initialization.

    A random encoder has the normalization of its run, since that alone changes what it is worth. A dictionary of
    patches is a floor itself, and has none.
    """
    baselines: dict[EvaluatedEncoder, None] = {}
    for run in runs:
        baselines[EvaluatedEncoder(PIXELS, PIXELS, None, run.data, run.size, 0, "dataset")] = None
    for normalization in ("dataset", "image"):
        for run in runs:
            if not encoders.is_floor(run.encoder) and normalization in ("dataset", run.normalization):
                baselines[run.random_init(normalization)] = None
    return [*baselines, *(run for run in runs if run not in baselines)]


def unique_labels(evaluated: list[EvaluatedEncoder]) -> dict[EvaluatedEncoder, str]:
    """Returns a name for each encoder: its short label, with all that sets it apart where several have the same."""
    plain = Counter(one.short_label for one in evaluated)

    def full_label(one: EvaluatedEncoder) -> str:
        stem = f", built for {one.stem} px" if one.stem else ""
        return f"{one.short_label} ({one.encoder}{stem}, {Path(one.data).name}, {one.size} px, seed {one.seed})"

    return {one: one.short_label if plain[one.short_label] == 1 else full_label(one) for one in evaluated}
