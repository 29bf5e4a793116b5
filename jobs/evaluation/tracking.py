"""Sends results to W&B: to the run of each encoder's training, and to a run of its own for any other encoder."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster.job import Job
from jobs.config.evaluation import Evaluation
from jobs.config.recipe import short_hash
from jobs.evaluation.dataset_names import Images, unique_dataset_names
from jobs.evaluation.encoders import EvaluatedEncoder
from jobs.evaluation.records import current_records, path_of
from jobs.pretraining.recorder import tracked_config
from jobs.study.folder import Study
from jobs.tracking.connection import DecidedMode
from jobs.tracking.tracker import Tracker
from ssl_core.encoders.pretrained import file_name
from ssl_core.errors import UserError
from ssl_core.storage.files import exists, read_json, write_json
from ssl_core.storage.records import EncoderRecord, EvaluationRecord

TRACKING = "tracking"  # the kind of such jobs
ROWS = 200  # steps of a training's W&B run that are kept free for each result: rows, and pictures
STEP = "train/step"  # what the rows of a training's W&B run are plotted over


@dataclass(frozen=True)
class TrackingJob:
    """Says whose results are to be tracked.

    Attributes:
        root: The study's folder or URL.
        encoders: One encoder, on each dataset that it is evaluated on.
        evaluation: Protocols, splits and seed.
        mode: How to track.
    """

    root: str
    encoders: tuple[EvaluatedEncoder, ...]
    evaluation: Evaluation
    mode: DecidedMode


def tracking_jobs(
    study: Study, evaluated: list[EvaluatedEncoder], evaluation: Evaluation, mode: DecidedMode, jobs: list[Job]
) -> list[Job]:
    """Makes a job for each encoder whose results are not in W&B, or not all; it comes after its evaluations.

    Args:
        study: The study.
        evaluated: The encoders.
        evaluation: Protocols, splits and seed.
        mode: How to track.
        jobs: The jobs of evaluations that are missing; their arguments say whose they are.
    """
    if mode == "off":
        return []
    pending: dict[EvaluatedEncoder, list[str]] = defaultdict(list)
    for job in jobs:
        if (one := getattr(job.args[0], "encoder", None)) is not None:
            pending[one].append(job.name)
    alike: dict[tuple, list[EvaluatedEncoder]] = defaultdict(list)
    for one in evaluated:
        alike[one.weights_name].append(one)
    known, found = current_records(study, evaluated, evaluation), []
    for encoders in alike.values():
        needs = tuple(name for one in encoders for name in pending[one])
        one = TrackingJob(str(study.root), tuple(encoders), evaluation, mode)
        if needs or not _is_tracked(study, one, _flat(known[each] for each in encoders)):
            label = short_hash([asdict(each) for each in encoders])
            name = f"{TRACKING}/{encoders[0].short_label}-{label}"
            found.append(Job(name, track, (one,), needs, kind=TRACKING, needs_success=False))
    return found


def track(job: TrackingJob, *_) -> None:
    """Sends all results of an encoder that W&B does not have: numbers into its run's summary, and pictures.

    Those of earlier steps are rows of the training's history, over its steps, each sent once.
    """
    study = Study(job.root)
    found = current_records(study, job.encoders, job.evaluation)
    records = _flat(found.values())
    if not records:
        return
    first, digest = job.encoders[0], records[0].digest
    marker = _marker(study, first, digest)
    names = unique_dataset_names({_images(record): record.dataset.name for record in records})
    last = [record for one, of in found.items() if one.step is None for record in of.values()]
    pictures = {
        f"eval/{names[_images(record)]}/{record.protocol.name}": path
        for record in last
        if exists(path := path_of(study, record).with_suffix(".png"))
    }
    trained = EncoderRecord.read(study.run(first.run) / "encoder.json").training if first.run else None
    # the training's own rows come before, and its picture
    step = (trained.steps + 2 if trained else 0) + ROWS * sum(len(record.numbers) for record in records)
    tracker = Tracker(
        job.mode,
        study.root,
        id=run_id(study, first, digest),
        study=study.root.name,
        job_type="pretrain" if first.run else "encoder",
        name=first.run or first.short_label,
        config=_config(study, first),
        tags=(first.task, first.encoder, *dict.fromkeys(record.dataset.name for record in records)),
        step=STEP if first.run else None,
    )
    earlier: dict[int, dict[str, float]] = defaultdict(dict)
    sent = _read_marker(marker).items()
    for one, of in found.items():
        for record in of.values():
            if one.step is not None and _names(study, [record]).items().isdisjoint(sent):
                earlier[one.step] |= _values(record, names)
    for trained_steps, row in sorted(earlier.items()):
        tracker.log({**row, STEP: trained_steps}, step)
        step += 1
    values = {name: value for record in last for name, value in _values(record, names).items()}
    tracker.result({**values, STEP: trained.steps} if trained else values, step if first.run else 0)
    for number, (name, path) in enumerate(pictures.items(), 1):
        tracker.image(name, path, step + number)
    tracker.finish()
    write_json(marker, _names(study, records))


def run_id(study: Study, one: EvaluatedEncoder, digest: str) -> str:
    """Returns the id of an encoder's run in W&B: that of its training, or of its own."""
    name = one.run or f"{file_name(one.short_label)}-{digest[:12]}"
    return f"{name}-{study.token}"


def _config(study: Study, one: EvaluatedEncoder) -> dict[str, Any]:
    """Returns what W&B shows as an encoder's config: that of its training, as the training itself sends it."""
    if not one.run:
        names = ("task", "encoder", "seed", "normalization", "stem")
        return {name: getattr(one, name) for name in names}
    return tracked_config(read_json(study.run(one.run) / "config.json"))


def _images(record: EvaluationRecord) -> Images:
    return record.dataset.digest, record.encoder.size


def _flat(found: Iterable[dict[str, EvaluationRecord]]) -> list[EvaluationRecord]:
    return [record for of in found for record in of.values()]


def _is_tracked(study: Study, job: TrackingJob, records: list[EvaluationRecord]) -> bool:
    """Returns whether W&B has all results of an encoder that are there, `records`."""
    if not records:
        return True
    return _read_marker(_marker(study, job.encoders[0], records[0].digest)) == _names(study, records)


def _read_marker(marker: Path) -> dict[str, str]:
    """Returns what `_names` returned when results were sent; nothing if none were, or the file is damaged."""
    try:
        return read_json(marker) if exists(marker) else {}
    except UserError:
        return {}


def _marker(study: Study, one: EvaluatedEncoder, digest: str) -> Path:
    """Returns the file that says which results of an encoder are in W&B."""
    return study.root / "tracked" / f"{run_id(study, one, digest)}.json"


def _names(study: Study, records: Iterable[EvaluationRecord]) -> dict[str, str]:
    """Returns the records' files and when they were finished."""
    paths = ((path_of(study, record), record) for record in records)
    return {f"{path.parent.name}/{path.name}": record.finished for path, record in paths}


def _values(record: EvaluationRecord, names: Mapping[Images, str]) -> dict[str, float]:
    """Returns a record's numbers by what they are called in W&B, where datasets have these names."""
    name = f"eval/{names[_images(record)]}/{record.protocol.name}"
    return {f"{name}/{metric}": value for metric, value in record.numbers.items()}
