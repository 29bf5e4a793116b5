"""Writes the record of one evaluation: where it lies and what it holds."""

import base64
import io
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from jobs.config.evaluation import Evaluation
from jobs.config.recipe import short_hash
from jobs.evaluation.encoders import EvaluatedEncoder
from jobs.study.folder import Study
from jobs.tracking.connection import DecidedMode
from jobs.tracking.tracker import Tracker
from ssl_core.evaluation import features
from ssl_core.evaluation.coverage import missing_classes
from ssl_core.evaluation.frozen_encoder import make_splits
from ssl_core.evaluation.protocol import Result, is_accuracy, protocols
from ssl_core.plugins import source_digest
from ssl_core.storage.files import write_bytes, write_json


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
    chosen = protocols()[protocol]
    identity = {
        "protocol": protocol,
        "config": asdict(chosen.Config()),
        "version": chosen.version,
        "features": features.VERSION,
        "splits": asdict(evaluation.splits()),
        "seed": evaluation.probe_seed,
        "dataset": dataset,
        "size": encoder.size,
        "normalization": encoder.normalization,
    }
    if plugin := source_digest(type(chosen)):
        identity["plugin"] = plugin
    return study.record(digest, protocol, short_hash(identity))


def write_record(
    root: str,
    one: EvaluatedEncoder,
    label: str,
    evaluation: Evaluation,
    protocol: str,
    tracking: DecidedMode,
    result: Result,
    labels: dict[str, np.ndarray],
) -> dict:
    """Tracks what one protocol found, and writes its picture and then its record, whose presence means that it is
    done.

    Args:
        root: The study's folder or URL.
        one: The encoder.
        label: The encoder's name in the study.
        evaluation: Splits and seed.
        protocol: The protocol's name.
        tracking: How the result is tracked in W&B.
        result: What the protocol found.
        labels: By split, the labels of those of its images that could be read.

    Returns:
        The record.
    """
    study, source = Study(root), one.source
    numbers = {name: value for name, value in result.numbers.items() if math.isfinite(value)}
    parts = make_splits(source, evaluation.splits(), evaluation.probe_seed)[1]
    counts = {split: (len(ids) - len(labels[split]), len(ids)) for split, (_, ids) in parts.items()}
    unread = {split: [missing, total] for split, (missing, total) in counts.items() if missing}
    unknown = tuple(f"{name} is not finite" for name in result.numbers if name not in numbers)
    path, digest = record_path(study, one, protocol, evaluation, source.digest), one.digest(study)
    assert path is not None and digest is not None  # what was evaluated is finished
    record = {
        **asdict(one),
        "protocol": protocol,
        "version": protocols()[protocol].version,
        "dataset": source.name,
        "digest": digest,
        "probe_seed": evaluation.probe_seed,
        "numbers": numbers,
        "chosen": result.chosen,
        "test_images": len(labels["test"]),
        "correct": pack_bits(result.correct),
        "notes": [*result.notes, *unknown],
        "classes": len(source.classes),
        "lacking": missing_classes(source.classes, labels),
        "unread": unread,
    }
    tracker = Tracker(
        tracking,
        study.root,
        id=f"{path.stem}-{digest[:12]}-{study.token}",
        study=study.root.name,
        job_type="evaluate",
        name=f"{protocol}/{label}",
        config={**asdict(one), "protocol": protocol, "pretrain_run": one.run},
    )
    tracker.result({f"{protocol}/{key}": value for key, value in numbers.items()})
    if result.sheet is not None:
        write_bytes(path.with_suffix(".png"), _png(result.sheet))
        tracker.image(f"{protocol}/sheet", path.with_suffix(".png"), step=1)
    tracker.finish()
    write_json(path, record)
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
    name = protocols()[protocol].headline
    if name not in numbers:
        return "done"
    return f"{name} {numbers[name]:.1%}" if is_accuracy(protocol) else f"{name} {numbers[name]:.3g}"


def pack_bits(correct: np.ndarray | None) -> str | None:
    """Encodes [n] bool as base64 of its bits, so that later comparisons can pair test images."""
    return None if correct is None else base64.b64encode(np.packbits(correct).tobytes()).decode()


def unpack_bits(record: dict) -> np.ndarray:
    """Decodes what `pack_bits` left in a record, as [test_images] bool."""
    bits = np.frombuffer(base64.b64decode(record["correct"]), np.uint8)
    return np.unpackbits(bits, count=record["test_images"]).astype(bool)
