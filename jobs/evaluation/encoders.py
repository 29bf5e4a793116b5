"""Encoders that are judged: those of a study's runs, those brought into it, and the floors that they stand on."""

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
from ssl_core.encoders.pretrained import stored
from ssl_core.storage.files import exists, read_json
from ssl_core.task import name_of, tasks

RANDOM, PIXELS = "random-init", "raw-pixels"


@dataclass(frozen=True)
class Judged:
    """An encoder to be judged: a finished or planned run's, one brought from elsewhere, or a floor."""

    task: str  # the run's task, the label of an encoder from elsewhere, random-init or raw-pixels
    encoder: str
    run: str | None
    data: str
    size: int
    seed: int
    normalisation: str
    brought: str | None = None  # its folder's name, if it is from elsewhere
    stem: int | None = None  # the images' side that it is made for, if that gives it another stem than `size` would

    @property
    def source(self) -> Source:
        return open_source(self.data, self.size)

    @property
    def built(self) -> int:
        """The images' side that decides the encoder's stem."""
        return self.stem or self.size

    @property
    def plain_label(self) -> str:
        return self.run or self.brought or (self.task if self.normalisation == "dataset" else f"{self.task}-per-image")

    def load(self, study: Study) -> torch.nn.Module:
        folder = self.folder(study)
        if not folder:
            return encoders.build(self.encoder, self.built, self.seed)
        encoder, described = stored(folder)
        given, wanted = (self.source.mean, self.source.std), (tuple(described["mean"]), tuple(described["std"]))
        if self.brought and self.normalisation == "dataset" and wanted != given:
            return encoders.Restandardised(encoder, given, wanted)
        return encoder

    def folder(self, study: Study) -> Path | None:
        """Where its weights lie; None for a floor."""
        return study.run(self.run) if self.run else study.brought(self.brought) if self.brought else None

    def digest(self, study: Study) -> str | None:
        """Of the weights, and of the statistics of an encoder that brings its own; None while the run is not
        finished."""
        if not (folder := self.folder(study)):
            return _floor_digest(self.encoder, self.built, self.seed)
        if not exists(folder / "encoder.json"):
            return None
        described = read_json(folder / "encoder.json")
        if self.brought:
            return seen_through(described["digest"], described["mean"], described["std"])
        return described["digest"]

    def floor(self, normalisation: str) -> "Judged":
        """The same encoder at random initialisation."""
        return replace(self, task=RANDOM, run=None, brought=None, normalisation=normalisation)


@cache
def _floor_digest(encoder: str, size: int, seed: int) -> str:
    return encoders.digest(encoders.build(encoder, size, seed))


def seen_through(digest: str, mean: Sequence[float], std: Sequence[float]) -> str:
    """sha256 of weights with the statistics that their pixels are standardised by: the same weights under others are
    another encoder."""
    return hashlib.sha256(json.dumps([digest, list(mean), list(std)]).encode()).hexdigest()


def of_run(described: dict) -> Judged:
    """The encoder that an encoder.json describes."""
    return Judged(*(described[key] for key in ("task", "encoder", "run", "data", "size", "seed", "normalisation")))


def of_training(one: Training) -> Judged:
    """The encoder that a planned run will leave."""
    recipe = one.recipe
    task = name_of(recipe.task)
    normalisation = tasks()[task].normalisation
    return Judged(task, recipe.encoder, one.name, recipe.data, recipe.size, recipe.seed, normalisation)


def with_floors(runs: list[Judged]) -> list[Judged]:
    """`runs` after their floors: raw pixels, and each encoder at random initialisation under its runs'
    normalisation, since that alone changes what a random encoder is worth."""
    floors: dict[Judged, None] = {}
    for run in runs:
        floors[Judged(PIXELS, PIXELS, None, run.data, run.size, 0, "dataset")] = None
    for normalisation in ("dataset", "image"):
        for run in runs:
            if normalisation in ("dataset", run.normalisation):
                floors[run.floor(normalisation)] = None
    return [*floors, *(run for run in runs if run not in floors)]


def labels(judged: list[Judged]) -> dict[Judged, str]:
    """A name for each: a run's own, or the floor's, with all that sets it apart where a study has several."""
    plain = Counter(one.plain_label for one in judged)

    def full(one: Judged) -> str:
        return f"{one.plain_label} ({one.encoder}, {Path(one.data).name}, {one.size} px, seed {one.seed})"

    return {one: one.plain_label if plain[one.plain_label] == 1 else full(one) for one in judged}
