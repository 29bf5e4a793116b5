"""Writes and reads the records of evaluations: where they lie and what they hold."""

import base64
import io
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jobs.config.evaluation import Evaluation
from jobs.config.recipe import short_hash
from jobs.evaluation.encoders import EvaluatedEncoder
from jobs.study.folder import Study
from ssl_core.data.dataset import Source
from ssl_core.evaluation import features
from ssl_core.evaluation.coverage import missing_classes
from ssl_core.evaluation.frozen_encoder import make_splits
from ssl_core.evaluation.metrics import confusion_counts, main_measure
from ssl_core.evaluation.protocol import Result, is_accuracy, protocols
from ssl_core.plugins import source_digest
from ssl_core.storage.files import exists, glob_files, write_bytes
from ssl_core.storage.records import DatasetIdentity, EncoderIdentity, EvaluationRecord, ProtocolIdentity


def protocol_identity(protocol: str, evaluation: Evaluation) -> ProtocolIdentity:
    """Returns all that decides the result of a protocol, beside the encoder and the dataset.

    Args:
        protocol: The protocol's name.
        evaluation: Splits and seed.
    """
    known, splits = protocols()[protocol], evaluation.splits()
    return ProtocolIdentity(
        name=protocol,
        version=known.version,
        plugin=source_digest(type(known)),
        features=features.VERSION,
        config=json.loads(json.dumps(asdict(known.Config()))),  # as it is read back: lists, not tuples
        num_labels=splits.num_labels,
        val_fraction=splits.val_fraction,
        probe_seed=evaluation.probe_seed,
    )


def record_path(
    study: Study, encoder: EvaluatedEncoder, protocol: str, evaluation: Evaluation, dataset: str
) -> Path | None:
    """Returns where the result of one evaluation lies, named by all that it depends on.

    Args:
        study: The study.
        encoder: The encoder.
        protocol: The protocol's name.
        evaluation: Splits and seed.
        dataset: The dataset's digest.

    Returns:
        The file's path, or None while the encoder's run is not finished.
    """
    digest = encoder.digest(study)
    if digest is None:
        return None
    return _path(study, encoder, digest, protocol_identity(protocol, evaluation), dataset)


def path_of(study: Study, record: EvaluationRecord) -> Path:
    """Returns where a record of the study lies; the picture that belongs to it has the same name, with .png."""
    return _path(study, record.encoder, record.digest, record.protocol, record.dataset.digest)


def _path(study: Study, encoder: EncoderIdentity, digest: str, protocol: ProtocolIdentity, dataset: str) -> Path:
    pixels = {"dataset": dataset, "size": encoder.size, "normalization": encoder.normalization}
    return study.evaluation(digest, protocol.name, short_hash({**asdict(protocol), **pixels}))


def describe_evaluation(study: Study, encoders: list[EvaluatedEncoder], evaluation: Evaluation, **more: Any) -> None:
    """Writes into study.json how encoders are evaluated, and on which images, so that records can be distinguished.

    Args:
        study: The study.
        encoders: All that are to be evaluated.
        evaluation: Protocols, splits and seed.
        more: Other fields of study.json.
    """
    known = study.read().datasets if exists(study.file) else {}
    datasets = {**known, **{one.data: one.source.digest for one in encoders}}
    study.describe(evaluation=asdict(evaluation), datasets=datasets, **more)


def current_records(
    study: Study, encoders: Iterable[EvaluatedEncoder], evaluation: Evaluation
) -> dict[EvaluatedEncoder, dict[str, EvaluationRecord]]:
    """Reads the records of a study that belong to an evaluation, by encoder and protocol.

    Nothing but the study's folder is looked at: records say themselves what they are of. Left out are those of other
    splits, seeds or versions of a protocol, of images that have changed since, and of weights that were replaced.
    Encoders of equal weights share a record.

    Args:
        study: The study.
        encoders: The encoders.
        evaluation: Protocols, splits and seed.
    """
    everyone = list(encoders)
    if not exists(study.file):  # nothing was begun
        return {one: {} for one in everyone}
    datasets = study.read().datasets
    names = {name for one in everyone for name in evaluation.of(one).protocols}
    wanted = {name: protocol_identity(name, evaluation) for name in names}
    found: dict[tuple, EvaluationRecord] = {}
    for path in glob_files(study.root, "evaluate/*/*.json"):
        record = EvaluationRecord.read(path)
        one, name = record.encoder, record.protocol.name
        if record.protocol == wanted.get(name):
            weights = [record.digest] if one.run or one.external else [record.digest, None]
            for key in ((name, *_weights_key(one, digest, record.dataset.digest)) for digest in weights):
                other = found.get(key)
                if other is None or other.finished < record.finished:  # a baseline's weights depend on torch's version
                    found[key] = record

    def of(one: EvaluatedEncoder) -> dict[str, EvaluationRecord]:
        digest = one.digest(study) if one.run or one.external else None
        key = _weights_key(one, digest, datasets.get(one.data))
        return {name: found[name, *key] for name in evaluation.of(one).protocols if (name, *key) in found}

    return {one: of(one) for one in everyone}


def _weights_key(one: EncoderIdentity, digest: str | None, dataset: str | None) -> tuple:
    """Returns what records of one encoder have in common: its weights by their digest, a baseline's by its name."""
    weights = digest or (one.task, one.encoder, one.seed, one.stem)
    return weights, one.size, one.normalization, dataset


def make_record(
    label: str,
    one: EncoderIdentity,
    digest: str,
    source: Source,
    evaluation: Evaluation,
    protocol: str,
    result: Result,
    *,
    labels: dict[str, np.ndarray],
    device: str,
    seconds: float,
) -> EvaluationRecord:
    """Makes the record of one evaluation. What is not finite was not measured, and a note says so.

    Args:
        label: The encoder's name.
        one: The encoder.
        digest: Of its weights.
        source: The dataset.
        evaluation: Splits and seed.
        protocol: The protocol's name.
        result: What the protocol found.
        labels: By split, the labels of those of its images that could be read.
        device: That it ran on: the GPU's name, or "cpu".
        seconds: That it took.
    """
    numbers = {name: value for name, value in result.numbers.items() if math.isfinite(value)}
    parts = make_splits(source, evaluation.splits(), evaluation.probe_seed)[1]
    counts = {split: (len(ids) - len(labels[split]), len(ids)) for split, (_, ids) in parts.items()}
    return EvaluationRecord(
        label=label,
        encoder=one,
        digest=digest,
        dataset=DatasetIdentity(
            name=source.name,
            digest=source.digest,
            classes=len(source.classes),
            images={split: len(of) for split, of in labels.items()},
            unread={split: (missing, total) for split, (missing, total) in counts.items() if missing},
            lacking=missing_classes(source.classes, labels),
            class_names=tuple(map(str, source.classes)),
        ),
        protocol=protocol_identity(protocol, evaluation),
        numbers=numbers,
        chosen=result.chosen,
        correct=pack_bits(result.correct),
        notes=(*result.notes, *(f"{name} is not finite" for name in result.numbers if name not in numbers)),
        seconds=seconds,
        device=device,
        finished=datetime.now(UTC).isoformat(),
        confusion=() if result.predicted is None else confusion_counts(result.predicted, labels["test"]),
        map_draws=None if result.draws is None else base64.b64encode(result.draws.astype("<f4").tobytes()).decode(),
        points=tuple((point.x, point.y, point.label, point.cell) for point in result.points),
    )


@dataclass(frozen=True)
class EvaluationJob:
    """Says what is to be evaluated, and where the result goes.

    Attributes:
        root: The study's folder or URL.
        encoder: The encoder.
        label: The encoder's name in the study.
        evaluation: Splits and seed.
        protocol: The protocol's name.
    """

    root: str
    encoder: EvaluatedEncoder
    label: str
    evaluation: Evaluation
    protocol: str


def write_record(
    job: EvaluationJob, result: Result, labels: dict[str, np.ndarray], device: str, seconds: float
) -> EvaluationRecord:
    """Writes the picture of what one protocol found, and then its record, whose presence means that it is done.

    Args:
        job: What was evaluated.
        result: What the protocol found.
        labels: By split, the labels of those of its images that could be read.
        device: That it ran on: the GPU's name, or "cpu".
        seconds: That it took.

    Returns:
        The record.
    """
    study, one, evaluation, protocol = Study(job.root), job.encoder, job.evaluation, job.protocol
    source, digest = one.source, one.digest(study)
    assert digest is not None  # what was evaluated is finished
    record = make_record(
        job.label, one, digest, source, evaluation, protocol, result, labels=labels, device=device, seconds=seconds
    )
    path = path_of(study, record)
    if result.sheet is not None:
        write_bytes(path.with_suffix(".png"), _png(result.sheet))
    record.write(path)
    return record


def _png(image: np.ndarray) -> bytes:
    """Encodes [h, w, 3] uint8 as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    return buffer.getvalue()


def headline(protocol: str, numbers: dict[str, float]) -> str:
    """Returns a protocol's main number as text: an accuracy in percent, any other with three digits.

    Args:
        protocol: The protocol's name.
        numbers: What it measured.

    Returns:
        The text; "done" if the number needs labels and there were none.
    """
    name = main_measure(protocols()[protocol].headline, numbers)
    if name not in numbers:
        return "done"
    return f"{name} {numbers[name]:.1%}" if is_accuracy(protocol) else f"{name} {numbers[name]:.3g}"


def pack_bits(correct: np.ndarray | None) -> str | None:
    """Encodes [n] bool as base64 of its bits, so that later comparisons can pair test images."""
    return None if correct is None else base64.b64encode(np.packbits(correct).tobytes()).decode()


def unpack_bits(record: EvaluationRecord) -> np.ndarray:
    """Decodes what `pack_bits` left in a record that has answers, as [test images] bool."""
    assert record.correct is not None
    bits = np.frombuffer(base64.b64decode(record.correct), np.uint8)
    return np.unpackbits(bits, count=record.dataset.images["test"]).astype(bool)


def unpack_draws(record: EvaluationRecord) -> np.ndarray:
    """Returns the main number of drawn images of a record that has it, [draws] float64."""
    assert record.map_draws is not None
    return np.frombuffer(base64.b64decode(record.map_draws), "<f4").astype(np.float64)
