"""Says in sentences what limits the numbers of a comparison.

These are test images that were trained on, classes without images, and what too few images do not allow to measure.
"""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from jobs.config.evaluation import Evaluation
from jobs.evaluation.encoders import EvaluatedEncoder
from jobs.report.comparison import DatasetComparison, readable
from jobs.report.tuning import tuning_notes
from jobs.study.folder import Study
from ssl_core.data.duplicates import find_copies
from ssl_core.data.label_table import split_column
from ssl_core.data.near_duplicates import BITS, MAX_DISTANCE, MIN_CORRELATION
from ssl_core.evaluation.coverage import SHOWN, missing_classes
from ssl_core.evaluation.frozen_encoder import DESCRIPTIONS, make_splits
from ssl_core.storage.files import exists
from ssl_core.storage.records import MissingClasses
from ssl_core.storage.study_record import CopiesRecord

WITHOUT = {
    "test": ("Without a test image", "All metrics are over the other {rest}."),
    "train": ("Without an image that a probe learns from", "Their test images can only count as wrong."),
    "val": ("Without a held-out image", "They take no part in choosing a stage, a learning rate or neighbors."),
}


def find_caveats(study: Study, encoders: list[EvaluatedEncoder], evaluation: Evaluation) -> list[str]:
    """Returns what limits any number on these datasets, known before anything runs.

    Copies are looked for once for a dataset and kept in study.json.

    Args:
        study: The study, which keeps what was found.
        encoders: The encoders, each with its dataset.
        evaluation: Splits and seed.
    """
    known = _saved_copies(study)
    lines, new = [], {}
    for one in {one.data: one for one in encoders}.values():
        source, kept = one.source, known.get(one.data)
        if kept is None or kept.digest != source.digest:
            found = find_copies(source)
            pairs, near_pairs = (
                tuple((_name_in_dataset(one.data, a), _name_in_dataset(one.data, b)) for a, b in named)
                for named in (found.pairs, found.near_pairs)
            )
            new[one.data] = kept = replace(found, pairs=pairs, near_pairs=near_pairs)
        parts = make_splits(source, evaluation.splits(), evaluation.probe_seed)[1]
        labels = {split: getattr(source, part).labels[ids] for split, (part, ids) in parts.items()}
        lines += [
            f"{readable(source.name)}: {line}"
            for line in (
                *_copies_caveats(kept),
                *_class_caveats(len(source.classes), [missing_classes(source.classes, labels)]),
            )
        ]
    if new:
        study.describe(copies={**known, **new})
    return lines


def _saved_copies(study: Study) -> dict[str, CopiesRecord]:
    """Returns what study.json has of copies, by dataset."""
    return study.read().copies if exists(study.file) else {}


def _name_in_dataset(data: str, name: str) -> str:
    """Returns the name of an image without the folder of its dataset."""
    return readable(name.removeprefix(f"{Path(split_column(data)[0])}/"))


def caveats_of(part: DatasetComparison) -> list[str]:
    """Returns what limits the numbers of one dataset, in sentences."""
    lines = []
    for study in {row.study.root: row.study for row in part.rows}.values():
        known = _saved_copies(study)
        datasets = dict.fromkeys(row.one.data for row in part.rows if row.study.root == study.root)
        lines += [line for data in datasets if data in known for line in _copies_caveats(known[data])]
        lines += tuning_notes(study.read()) if exists(study.file) else []
    records = [record for row in part.rows for of in row.records.values() for record in of]
    lines += _class_caveats(_class_count(part), [record.dataset.lacking for record in records])
    lines += _unread_caveats([record.dataset.unread for record in records])
    return list(dict.fromkeys([*lines, *_protocol_notes(part)]))


def share_of_classes(part: DatasetComparison) -> str:
    """Returns which share of the classes the metrics are over, such as "over 1 of 2 classes", or "" if it is all."""
    absent = max(
        (
            record.dataset.lacking["test"].count
            for row in part.rows
            for of in row.records.values()
            for record in of
            if "test" in record.dataset.lacking
        ),
        default=0,
    )
    return f"over {_class_count(part) - absent} of {_class_count(part)} classes" if absent else ""


def _class_count(part: DatasetComparison) -> int:
    return max((record.dataset.classes for row in part.rows for of in row.records.values() for record in of), default=0)


def _copies_caveats(kept: CopiesRecord) -> list[str]:
    """Returns the sentences for one dataset's entry in study.json."""
    total, unknown, found = kept.test_images, kept.test_images - kept.compared, kept.found
    lines = []
    if found:
        pairs = ", ".join(f"{test} of {train}" for test, train in kept.pairs)
        lines.append(
            f"{found:,} of {total:,} test images: copies of training images, byte for byte, such as {pairs}. What they "
            "score may be remembered and not recognized."
            + (f" {kept.relabeled:,} of {found:,}: with another label there." if kept.relabeled else "")
        )
    if unknown:
        why = "they lie in a store or in Parquet shards" if kept.remote else "it would take too long"
        lines.append(f"{unknown:,} of {total:,} test images: not checked for copies of training images, {why}.")
    if kept.near_found:
        pairs = ", ".join(f"{test} of {train}" for test, train in kept.near_pairs)
        lines.append(
            f"{kept.near_found:,} of {total:,} test images: near copies of training images (at most {MAX_DISTANCE} of "
            f"{BITS} bits of a perceptual hash differ, and colors correlate by {MIN_CORRELATION} or more), such as "
            f"{pairs}."
        )
    if total and not kept.near_compared and not kept.remote:
        lines.append("Test images were not checked for near copies of training images; `tilespin data` does it.")
    return lines


def _class_caveats(classes: int, found: list[dict[str, MissingClasses]]) -> list[str]:
    """Returns the sentences for classes without images; `found` is what `missing_classes` says, of several encoders."""
    lines = []
    for split, (begin, end) in WITHOUT.items():
        absent = max((one[split] for one in found if split in one), key=lambda one: one.count, default=None)
        if absent:
            names = ", ".join(map(readable, absent.names)) + (" …" if absent.count > SHOWN else "")
            rest = classes - absent.count
            lines.append(f"{begin}: {names} ({absent.count:,} of {classes:,} classes). {end.format(rest=rest)}")
    return lines


def _unread_caveats(found: list[dict[str, tuple[int, int]]]) -> list[str]:
    """Returns the sentences for images that could not be decoded.

    `found` has, by split, how many could not and how many there are, of several encoders.
    """
    most = {split: max(one[split] for one in found if split in one) for split in {s: 0 for one in found for s in one}}
    return [
        f"{count:,} of {total:,} {DESCRIPTIONS[split]} could not be decoded and are left out of all numbers."
        for split, (count, total) in most.items()
    ]


def _protocol_notes(part: DatasetComparison) -> list[str]:
    """Returns what protocols noted, with the encoders' names where not all have the note."""
    by: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for row in part.rows:
        for protocol, of in row.records.items():
            for note in (note for record in of for note in record.notes):
                by[protocol, note][row.name] = None
    lines = []
    for (protocol, note), names in by.items():
        all_have_it = len(names) == sum(protocol in row.records for row in part.rows)
        lines.append(f"{protocol}: {note}" + ("." if all_have_it else f" ({', '.join(names)})."))
    return lines
