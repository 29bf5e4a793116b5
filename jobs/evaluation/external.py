"""Encoders brought into a study to be judged beside its own. They are kept in it, so that nothing is fetched, read or
told again: `encoders/<label>-<digest>/`, and their list in study.json."""

from dataclasses import asdict, dataclass

from safetensors.torch import save as safetensors_bytes

import ssl_core.encoders.build as encoders
from jobs.config.recipe import whole_path
from jobs.evaluation.encoders import RANDOM, Judged, of_run, seen_through
from jobs.study.folder import Study
from ssl_core.data.dataset import open_source
from ssl_core.encoders.pretrained import Pretrained, plain_name, pretrained
from ssl_core.errors import BadInput
from ssl_core.storage.files import exists, read_json, write_bytes, write_json


@dataclass(frozen=True)
class Arrival:
    """An encoder that is to be kept in a study, and what it is judged as there."""

    judged: Judged
    one: Pretrained
    described: dict  # what its encoder.json will say

    def keep(self, study: Study) -> None:
        """Writes it into the study, encoder.json last. An encoder at random initialisation needs no file."""
        if self.one.encoder is None or exists(study.brought(self.judged.brought) / "encoder.json"):
            return
        folder = study.brought(self.judged.brought)
        write_bytes(folder / "encoder.safetensors", safetensors_bytes(encoders.weights(self.one.encoder)))
        write_json(folder / "encoder.json", self.described)


def arrive(told: str, data: str, size: int | None) -> Arrival:
    """The encoder that `told` names, to be judged on `data`. Raises BadInput."""
    one = pretrained(told)
    source = open_source(data, size)
    data = whole_path(data)
    stem = encoders.stem(one.architecture, one.built, source.size)
    common = dict(encoder=one.architecture, run=None, data=data, size=source.size, seed=one.seed, stem=stem)
    encoders.describe(encoders.build(one.architecture, stem or source.size, 0), one.architecture, source.size)
    if one.encoder is None:
        return Arrival(Judged(task=RANDOM, normalisation="dataset", **common), one, {})
    digest = encoders.digest(one.encoder)
    folder = f"{plain_name(one.label)}-{seen_through(digest, one.mean, one.std)[:8]}"
    described = {
        **one.origin,
        "told": told,
        "label": one.label,
        "encoder": one.architecture,
        "size": one.built,
        "mean": one.mean,
        "std": one.std,
        "normalisation": one.normalisation,
        "digest": digest,
        "seed": one.seed,
        "unused": one.unused,
    }
    judged = Judged(task=one.label, normalisation=one.normalisation, brought=folder, **common)
    return Arrival(judged, one, described)


def everything(study: Study) -> list[Judged]:
    """All that a study has to judge, its floors aside: its finished runs, and the encoders brought into it."""
    runs = [of_run(read_json(folder / "encoder.json")) for folder in study.runs()]
    return [*runs, *(Judged(**kept) for kept in _listed(study))]


def _listed(study: Study) -> list[dict]:
    return read_json(study.file).get("encoders", [])


def add(study: Study, arrivals: list[Arrival]) -> None:
    """Keeps them in the study, and lists them."""
    listed = [Judged(**kept) for kept in _listed(study)] if exists(study.file) else []
    for arrival in arrivals:
        arrival.keep(study)
    both = dict.fromkeys([*listed, *(arrival.judged for arrival in arrivals)])
    study.describe(encoders=[asdict(one) for one in both])


def place_of(study: Study, data: str | None, size: int | None) -> tuple[str, int | None]:
    """What brought encoders are judged on: as told, else as the study's first encoder. Raises BadInput if there is
    none."""
    if data is not None:
        return data, size
    known = everything(study) if exists(study.file) else []
    if not known:
        raise BadInput(f"{study.root}: no study here (expected {study.file}), or an empty one: --encoder needs --data")
    return known[0].data, size or known[0].size


def said(arrival: Arrival) -> str:
    """What the user should know of how it was taken."""
    one = arrival.one
    if one.encoder is None:
        return f"{one.label}: at random initialisation"
    pixels = (
        "each image by its own statistics"
        if one.normalisation == "image"
        else (f"pixels by mean {_numbers(one.mean)} and std {_numbers(one.std)} of 255")
    )
    left = f"; left out: {', '.join(one.unused[:4])}{' …' if len(one.unused) > 4 else ''}" if one.unused else ""
    return "; ".join([f"{one.label}: {one.architecture}, {pixels}{left}", *one.notes])


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.1f}" for value in values)
