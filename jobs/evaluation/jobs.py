"""Cells: the result of one (encoder, protocol, dataset, seed), its jobs and its file, whose presence means done."""

import shutil
from functools import cache
from pathlib import Path

import torch

import ssl_core.encoders.build as encoders
from cluster.job import Job
from jobs.config.evaluation import Evaluation
from jobs.evaluation.encoders import Judged, labels
from jobs.evaluation.records import _write, cell_path
from jobs.study.folder import Study
from jobs.tracking.connection import Mode
from ssl_core.data.dataset import open_source
from ssl_core.errors import BadInput
from ssl_core.evaluation import features
from ssl_core.evaluation.frozen_encoder import Model, Splits, shares
from ssl_core.storage.files import exists, found, is_local, remove


def check(judged: list[Judged], evaluation: Evaluation) -> None:
    """Raises BadInput, before anything runs, for settings or datasets that no encoder can be judged with."""
    evaluation.check()
    known = features.protocols()
    for data, size in {(one.data, one.size) for one in judged}:
        source = open_source(data, size)
        if not source.classes and any(known[name].labels for name in evaluation.protocols):
            without = " ".join(name for name, module in known.items() if not module.labels)
            raise BadInput(
                f"{source.name} has no labels: evaluation needs a folder with one sub-folder for each class, or what "
                f"does without labels: --protocols {without}"
            )
        shares(source, evaluation.splits(), evaluation.probe_seed)


def jobs(
    study: Study,
    judged: list[Judged],
    evaluation: Evaluation,
    tracking: Mode,
    device: str,
    planned: set[str],
    threads: int,
) -> list[Job]:
    """A job for each result that is missing, and one for the features that those on features share. `planned` names
    the pretraining jobs that come before them."""
    found = []
    gpus = 1 if device == "cuda" else 0
    for one, label in labels(judged).items():
        dataset = one.source.digest
        missing = [
            name
            for name in evaluation.protocols
            if not ((path := cell_path(study, one, name, evaluation, dataset)) and exists(path))
        ]
        extract = f"features/{label}"
        needs = (one.run,) if one.run in planned else ()
        place = (device, threads)
        on_features = [name for name in missing if features.protocols()[name].on == "features"]
        if on_features:
            found.append(
                Job(
                    extract,
                    _extract,
                    (str(study.root), one, evaluation, *place),
                    needs,
                    gpus=gpus,
                    fetch=False,
                    holds=_size(one, evaluation),
                )
            )
        for name in missing:
            args = (str(study.root), one, label, evaluation, name, tracking)
            if name in on_features:
                found.append(Job(f"{name}/{label}", _judge_features, args, (extract,)))
            else:
                found.append(Job(f"{name}/{label}", _judge_encoder, (*args, *place), needs, gpus=gpus))
    return found


def _size(one: Judged, evaluation: Evaluation) -> int:
    """Bytes of an encoder's features."""
    return _size_of(one.encoder, one.built, one.data, one.size, evaluation.splits(), evaluation.probe_seed)


@cache
def _size_of(encoder: str, built: int, data: str, size: int, splits: Splits, seed: int) -> int:
    return features.size_of(encoders.build(encoder, built, 0), encoder, open_source(data, size), splits, seed)


def _model(
    root: str, one: Judged, evaluation: Evaluation, device: str, threads: int, keep: Path | None = None
) -> Model:
    place = torch.device(device)
    return Model(
        one.load(Study(root)),
        one.source,
        one.normalisation,
        evaluation.splits(),
        evaluation.probe_seed,
        place,
        threads,
        keep,
    )


def _extract(root: str, one: Judged, evaluation: Evaluation, device: str, threads: int, *_) -> features.Subject:
    return features.extract(_model(root, one, evaluation, device, threads))


def _judge_features(
    root: str, one: Judged, label: str, evaluation: Evaluation, protocol: str, tracking: Mode, subject: features.Subject
) -> dict:
    module = features.protocols()[protocol]
    result = module.run(subject, module.Config(), evaluation.probe_seed)
    return _write(root, one, label, evaluation, protocol, tracking, result, subject.labels)


def _judge_encoder(
    root: str,
    one: Judged,
    label: str,
    evaluation: Evaluation,
    protocol: str,
    tracking: Mode,
    device: str,
    threads: int,
    *_,
) -> dict:
    module, source = features.protocols()[protocol], one.source
    path = cell_path(Study(root), one, protocol, evaluation, source.digest)
    keep = path.with_suffix("")
    model = _model(root, one, evaluation, device, threads, keep)
    result = module.run(model, module.Config(), evaluation.probe_seed)
    cell = _write(root, one, label, evaluation, protocol, tracking, result, model.labels)
    for file in found(keep, "**/step-*"):  # checkpoints of what is done
        remove(file)
    if is_local(keep):  # the empty folders; a store has none
        shutil.rmtree(keep, ignore_errors=True)
    return cell
