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
from jobs.pretraining.run import Training
from jobs.study.folder import Study
from ssl_core.data.dataset import Source, open_source
from ssl_core.encoders.pretrained import load_saved
from ssl_core.storage.files import exists, read_json
from ssl_core.task import task_name, tasks

RANDOM, PIXELS = "random-init", "raw-pixels"


@dataclass(frozen=True)
class EvaluatedEncoder:
    """Describes an encoder to be evaluated: a finished or planned run's, one from elsewhere, or a baseline."""

    task: str  # the run's task, the label of an encoder from elsewhere, random-init or raw-pixels
    encoder: str
    run: str | None
    data: str
    size: int
    seed: int
    normalization: str
    external: str | None = None  # its folder's name, if it is from elsewhere
    stem: int | None = None  # the images' side that it is made for, if that gives it another stem than `size` would

    @property
    def source(self) -> Source:
        """Opens the dataset that the encoder is evaluated on."""
        return open_source(self.data, self.size)

    @property
    def built(self) -> int:
        """Returns the images' side in pixels that decides the encoder's stem."""
        return self.stem or self.size

    @property
    def short_label(self) -> str:
        """Returns a short name, which several encoders of a study may share."""
        return self.run or self.external or (self.task if self.normalization == "dataset" else f"{self.task}-per-image")

    def load(self, study: Study) -> torch.nn.Module:
        """Builds the encoder with its weights, which lie in `study` unless they are random."""
        folder = self.folder(study)
        if not folder:
            return encoders.build(self.encoder, self.built, self.seed)
        encoder, described = load_saved(folder)
        given, wanted = (self.source.mean, self.source.std), (tuple(described["mean"]), tuple(described["std"]))
        if self.external and self.normalization == "dataset" and wanted != given:
            return encoders.RestandardizedEncoder(encoder, given, wanted)
        return encoder

    def folder(self, study: Study) -> Path | None:
        """Returns where its weights lie, or None for a baseline."""
        return study.run(self.run) if self.run else study.external(self.external) if self.external else None

    def digest(self, study: Study) -> str | None:
        """Returns a digest of the weights, or None while the run is not finished.

        That of an encoder from elsewhere includes the statistics that it brings along.
        """
        if not (folder := self.folder(study)):
            return _random_init_digest(self.encoder, self.built, self.seed)
        if not exists(folder / "encoder.json"):
            return None
        described = read_json(folder / "encoder.json")
        if self.external:
            return digest_with_statistics(described["digest"], described["mean"], described["std"])
        return described["digest"]

    def random_init(self, normalization: str) -> "EvaluatedEncoder":
        """Returns the same encoder at random initialization, under this normalization."""
        return replace(self, task=RANDOM, run=None, external=None, normalization=normalization)


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


def from_run(described: dict) -> EvaluatedEncoder:
    """Returns the encoder that an encoder.json describes."""
    return EvaluatedEncoder(
        *(described[key] for key in ("task", "encoder", "run", "data", "size", "seed", "normalization"))
    )


def from_training(one: Training) -> EvaluatedEncoder:
    """Returns the encoder that a planned run will leave."""
    recipe = one.recipe
    task = task_name(recipe.task)
    normalization = tasks()[task].normalization
    return EvaluatedEncoder(task, recipe.encoder, one.name, recipe.data, recipe.size, recipe.seed, normalization)


def with_baselines(runs: list[EvaluatedEncoder]) -> list[EvaluatedEncoder]:
    """Returns `runs` after their baselines: raw pixels, and each encoder at random initialization.

    A random encoder has the normalization of its run, since that alone changes what it is worth.
    """
    baselines: dict[EvaluatedEncoder, None] = {}
    for run in runs:
        baselines[EvaluatedEncoder(PIXELS, PIXELS, None, run.data, run.size, 0, "dataset")] = None
    for normalization in ("dataset", "image"):
        for run in runs:
            if normalization in ("dataset", run.normalization):
                baselines[run.random_init(normalization)] = None
    return [*baselines, *(run for run in runs if run not in baselines)]


def unique_labels(evaluated: list[EvaluatedEncoder]) -> dict[EvaluatedEncoder, str]:
    """Returns a name for each encoder: its short label, with all that sets it apart where several have the same."""
    plain = Counter(one.short_label for one in evaluated)

    def full_label(one: EvaluatedEncoder) -> str:
        return f"{one.short_label} ({one.encoder}, {Path(one.data).name}, {one.size} px, seed {one.seed})"

    return {one: one.short_label if plain[one.short_label] == 1 else full_label(one) for one in evaluated}
