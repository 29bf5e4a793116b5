"""Cells: the result of one (encoder, protocol, dataset, seed), its jobs and its file, whose presence means done."""

import base64
import io
import math
import shutil
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import ssl_core.encoders.build as encoders
from cluster.job import Job
from jobs.config.recipe import short_hash
from jobs.evaluation.encoders import Judged, labels
from jobs.study.folder import Study
from jobs.tracking.connection import Mode
from jobs.tracking.tracker import Tracker
from ssl_core.data.dataset import open_source
from ssl_core.errors import BadInput, closest
from ssl_core.evaluation import features
from ssl_core.evaluation.coverage import lacking
from ssl_core.evaluation.frozen_encoder import Model, Splits, shares
from ssl_core.storage.files import exists, found, is_local, read_json, remove, write_bytes, write_json


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How encoders are judged."""

    protocols: tuple[str, ...] = ("linear", "knn", "invariance", "semantics", "collapse", "retrieval")
    """which protocols to run"""
    labels: int = 12_000
    """labelled training images that a probe may use, held-out ones included; 0 for all"""
    held_out: float = 1 / 6
    """share of them that chooses stage and learning rate"""
    probe_seed: int = 0
    """decides which labelled images a probe uses, and its order"""

    @classmethod
    def told(cls, study: Study) -> "Evaluation | None":
        """How the study was last evaluated, or None."""
        told = read_json(study.file).get("evaluation")
        return cls(**{**told, "protocols": tuple(told["protocols"])}) if told else None

    def splits(self) -> Splits:
        return Splits(labels=self.labels, held_out=self.held_out)

    def check(self) -> None:
        """Raises BadInput for a protocol that does not exist or splits that leave nothing."""
        known = features.protocols()
        for name in self.protocols:
            if name not in known:
                hint = f"did you mean {close}? " if (close := closest(name, known)) else ""
                raise BadInput(f"--protocols {name}: {hint}there is {', '.join(known)}")
        if not self.protocols or len(set(self.protocols)) < len(self.protocols):
            raise BadInput(f"--protocols {' '.join(self.protocols)}: expected at least one, each once")
        if not 0 <= self.probe_seed < 2**31:
            raise BadInput(f"--probe-seed is {self.probe_seed}, expected 0 to 2**31 - 1")
        if not 0 < self.held_out < 1:
            raise BadInput(f"--held-out is {self.held_out}, expected a share between 0 and 1")
        if self.labels < 0:
            raise BadInput(f"--labels is {self.labels}, expected 0 (all) or more")


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


def cell_path(study: Study, judged: Judged, protocol: str, evaluation: Evaluation, dataset: str) -> Path | None:
    """Where the result of one (encoder, protocol, dataset, seed) lies: named by all that it depends on."""
    digest = judged.digest(study)
    if digest is None:
        return None
    module = features.protocols()[protocol]
    identity = {
        "protocol": protocol, "config": asdict(module.Config()), "version": module.version,
        "features": features.VERSION, "splits": asdict(evaluation.splits()), "seed": evaluation.probe_seed,
        "dataset": dataset, "size": judged.size, "normalisation": judged.normalisation,
    }  # fmt: skip
    return study.cell(digest, protocol, short_hash(identity))


def jobs(study: Study, judged: list[Judged], evaluation: Evaluation, tracking: Mode, device: str, planned: set[str],
         threads: int) -> list[Job]:  # fmt: skip
    """A job for each result that is missing, and one for the features that those on features share. `planned` names
    the pretraining jobs that come before them."""
    found = []
    gpus = 1 if device == "cuda" else 0
    for one, label in labels(judged).items():
        dataset = one.source.digest
        missing = [name for name in evaluation.protocols
                   if not ((path := cell_path(study, one, name, evaluation, dataset)) and exists(path))]  # fmt: skip
        extract = f"features/{label}"
        needs = (one.run,) if one.run in planned else ()
        place = (device, threads)
        on_features = [name for name in missing if features.protocols()[name].on == "features"]
        if on_features:
            found.append(Job(extract, _extract, (str(study.root), one, evaluation, *place), needs, gpus=gpus,
                             fetch=False, holds=_size(one, evaluation)))  # fmt: skip
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
        one.load(Study(root)), one.source, one.normalisation, evaluation.splits(), evaluation.probe_seed, place,
        threads, keep,
    )  # fmt: skip


def _extract(root: str, one: Judged, evaluation: Evaluation, device: str, threads: int, *_) -> features.Subject:
    return features.extract(_model(root, one, evaluation, device, threads))


def _judge_features(
    root: str, one: Judged, label: str, evaluation: Evaluation, protocol: str, tracking: Mode, subject: features.Subject
) -> dict:
    module = features.protocols()[protocol]
    result = module.run(subject, module.Config(), evaluation.probe_seed)
    return _write(root, one, label, evaluation, protocol, tracking, result, subject.labels)


def _judge_encoder(
    root: str, one: Judged, label: str, evaluation: Evaluation, protocol: str, tracking: Mode, device: str,
    threads: int, *_,
) -> dict:  # fmt: skip
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


def _write(
    root: str, one: Judged, label: str, evaluation: Evaluation, protocol: str, tracking: Mode, result: features.Result,
    labels: dict[str, np.ndarray],
) -> dict:  # fmt: skip
    """Tracks what one protocol found and writes its picture and its cell, last: its presence means that it is done.
    `labels` are those of the images of each split that could be read."""
    study, source = Study(root), one.source
    numbers = {name: value for name, value in result.numbers.items() if math.isfinite(value)}
    parts = shares(source, evaluation.splits(), evaluation.probe_seed)[1]
    counts = {split: (len(ids) - len(labels[split]), len(ids)) for split, (_, ids) in parts.items()}
    unread = {split: [missing, total] for split, (missing, total) in counts.items() if missing}
    unknown = tuple(f"{name} is not finite" for name in result.numbers if name not in numbers)
    path = cell_path(study, one, protocol, evaluation, source.digest)
    cell = {
        **asdict(one), "protocol": protocol, "version": features.protocols()[protocol].version,
        "dataset": source.name, "digest": one.digest(study), "probe_seed": evaluation.probe_seed,
        "numbers": numbers, "chosen": result.chosen, "test_images": len(labels["test"]),
        "correct": packed(result.correct), "notes": [*result.notes, *unknown],
        "classes": len(source.classes), "lacking": lacking(source.classes, labels), "unread": unread,
    }  # fmt: skip
    tracker = Tracker(
        tracking, study.root, id=f"{path.stem}-{cell['digest'][:12]}-{study.token}", study=study.root.name,
        job_type="evaluate", name=f"{protocol}/{label}",
        config={**asdict(one), "protocol": protocol, "pretrain_run": one.run},
    )  # fmt: skip
    tracker.result({f"{protocol}/{key}": value for key, value in numbers.items()})
    if result.sheet is not None:
        write_bytes(path.with_suffix(".png"), _png(result.sheet))
        tracker.picture(f"{protocol}/sheet", path.with_suffix(".png"), step=1)
    tracker.finish()
    write_json(path, cell)
    return cell


def _png(picture: np.ndarray) -> bytes:
    """[h, w, 3] uint8 as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "png")
    return buffer.getvalue()


def headline(protocol: str, numbers: dict[str, float]) -> str:
    """A protocol's headline as it is told: an accuracy in percent, any other number in three digits; nothing if it
    needs labels and there were none."""
    name = features.protocols()[protocol].headline
    if name not in numbers:
        return "done"
    return f"{name} {numbers[name]:.1%}" if features.tells_accuracy(protocol) else f"{name} {numbers[name]:.3g}"


def packed(correct: np.ndarray | None) -> str | None:
    """[n] bool as base64 of its bits, so that later comparisons can pair test images."""
    return None if correct is None else base64.b64encode(np.packbits(correct).tobytes()).decode()


def unpacked(cell: dict) -> np.ndarray:
    """The inverse of `packed`: [test_images] bool."""
    bits = np.frombuffer(base64.b64decode(cell["correct"]), np.uint8)
    return np.unpackbits(bits, count=cell["test_images"]).astype(bool)
