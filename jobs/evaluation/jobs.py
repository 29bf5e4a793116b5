"""Makes the jobs of evaluations: one for each result of an (encoder, protocol, dataset, seed).

A result is one file, whose presence means that it is done.
"""

import shutil
import time
from functools import cache, partial
from pathlib import Path

import torch

import ssl_core.encoders.build as encoders
from cluster.job import Job, never
from jobs.config.evaluation import Evaluation
from jobs.config.runtime import device_name
from jobs.evaluation.encoders import EvaluatedEncoder, unique_labels
from jobs.evaluation.records import EvaluationJob, record_path, write_record
from jobs.evaluation.tracking import tracking_jobs
from jobs.study.folder import Study
from jobs.tracking.connection import DecidedMode
from ssl_core.data.dataset import Source, open_source
from ssl_core.errors import UserError
from ssl_core.evaluation import features
from ssl_core.evaluation.frozen_encoder import FrozenEncoder, Splits, make_splits
from ssl_core.evaluation.protocol import can_evaluate_on, protocols
from ssl_core.storage.files import exists, glob_files, is_local, remove
from ssl_core.storage.records import EvaluationRecord

EVALUATION = "evaluation"  # the kind of jobs of which each leaves one result


def check_evaluation(evaluated: list[EvaluatedEncoder], evaluation: Evaluation) -> None:
    """Checks, before anything runs, that encoders can be evaluated so.

    Args:
        evaluated: The encoders, each with its dataset.
        evaluation: Protocols and splits.

    Raises:
        UserError: If a setting is wrong, or a dataset lacks labels that a protocol needs.
    """
    evaluation.check()
    sources = {one: open_source(*one) for one in dict.fromkeys((one.data, one.size) for one in evaluated)}
    for place, source in sources.items():
        check_dataset(source, evaluation.on(*place))
    if any(one.step is not None for one in evaluated):
        for name in evaluation.evaluate_at_protocols:
            if not any(can_evaluate_on(source, protocols()[name]) for source in sources.values()):
                raise UserError(f"--evaluate-at-protocols {name}: none of the datasets has the labels that it needs")


def protocols_for(one: EvaluatedEncoder, evaluation: Evaluation) -> list[str]:
    """Returns the protocols that an encoder is evaluated by on its dataset."""
    source, known = one.source, protocols()
    return [name for name in evaluation.of(one).protocols if one.step is None or can_evaluate_on(source, known[name])]


def check_dataset(source: Source, evaluation: Evaluation) -> None:
    """Raises UserError if a dataset lacks labels or masks that a protocol needs, or has several labels an image, or too
    few images."""
    known = protocols()
    able = [name for name, of in known.items() if can_evaluate_on(source, of)]
    refused = [name for name in evaluation.protocols if name not in able]
    if refused:
        why = (
            "has no labels: evaluation needs a folder with one sub-folder for each class, or a table of labels, or "
            "what does without labels"
        )
        if source.multilabel:
            why = f"has several labels an image, and {' and '.join(refused)} need one: take what can do with several"
        if any(known[name].needs_masks for name in refused):
            why = "has no masks, images/ beside masks/: take what does without"
        elif source.masks:
            why = f"has masks and no labels, which {' and '.join(refused)} need: take what does without"
        raise UserError(f"{source.name} {why}: --protocols {' '.join(able)}")
    make_splits(source, evaluation.splits(), evaluation.probe_seed)


def evaluation_jobs(
    study: Study,
    evaluated: list[EvaluatedEncoder],
    evaluation: Evaluation,
    tracking: DecidedMode,
    device: str,
    planned: set[str],
    threads: int,
) -> list[Job]:
    """Makes a job for each result that is missing, one for the features that several protocols share, and one for each
    encoder that sends its results to W&B.

    Args:
        study: The study, which keeps the results.
        evaluated: The encoders.
        evaluation: Protocols and splits.
        tracking: How results are tracked in W&B.
        device: "cuda" or "cpu".
        planned: The names of the pretraining jobs that come first.
        threads: Decoding threads of each job.
    """
    found = []
    gpus = 1 if device == "cuda" else 0
    for one, label in unique_labels(evaluated).items():
        dataset = one.source.digest
        missing = [
            name
            for name in protocols_for(one, evaluation)
            if not ((path := record_path(study, one, name, evaluation, dataset)) and exists(path))
        ]
        extract = f"features/{label}"
        needs = (one.run,) if one.run in planned else ()
        # one that is kept in the middle of its training need not wait for the end
        kept = one.folder(study) if one.step is not None else None
        ready = partial(exists, kept / "encoder.json") if kept else never
        placement = (device, threads)
        on_features = [name for name in missing if protocols()[name].on == "features"]
        if on_features:
            found.append(
                Job(
                    extract,
                    _extract,
                    (str(study.root), one, evaluation, *placement),
                    needs,
                    gpus=gpus,
                    fetch=False,
                    result_bytes=_features_bytes(one, evaluation),
                    ready=ready,
                )
            )
        for name in missing:
            title, job = f"{name}/{label}", EvaluationJob(str(study.root), one, label, evaluation, name)
            if name in on_features:
                found.append(Job(title, _evaluate_features, (job,), (extract,), kind=EVALUATION))
            else:
                whole = (job, *placement)
                found.append(Job(title, _evaluate_encoder, whole, needs, gpus=gpus, kind=EVALUATION, ready=ready))
    return [*found, *tracking_jobs(study, evaluated, evaluation, tracking, found)]


def _features_bytes(one: EvaluatedEncoder, evaluation: Evaluation) -> int:
    """Returns how many bytes an encoder's features have."""
    return _cached_features_bytes(
        one.encoder, one.built, one.data, one.size, evaluation.splits(), evaluation.probe_seed
    )


@cache
def _cached_features_bytes(encoder: str, built: int, data: str, size: int, splits: Splits, seed: int) -> int:
    return features.size_of(encoders.build(encoder, built, 0), encoder, open_source(data, size), splits, seed)


def _frozen_encoder(
    root: str, one: EvaluatedEncoder, evaluation: Evaluation, device: str, threads: int, keep: Path | None = None
) -> FrozenEncoder:
    torch_device = torch.device(device)
    return FrozenEncoder(
        one.load(Study(root)),
        one.source,
        one.normalization,
        evaluation.splits(),
        evaluation.probe_seed,
        torch_device,
        threads,
        keep,
    )


def _extract(
    root: str, one: EvaluatedEncoder, evaluation: Evaluation, device: str, threads: int, *_
) -> features.FrozenFeatures:
    return features.extract(_frozen_encoder(root, one, evaluation, device, threads))


def _evaluate_features(job: EvaluationJob, frozen: features.FrozenFeatures) -> EvaluationRecord:
    chosen, started = protocols()[job.protocol], time.monotonic()
    result = chosen.run(frozen, chosen.Config(), job.evaluation.probe_seed)
    return write_record(job, result, frozen.labels, "cpu", time.monotonic() - started)


def _evaluate_encoder(job: EvaluationJob, device: str, threads: int, *_) -> EvaluationRecord:
    chosen, started, source = protocols()[job.protocol], time.monotonic(), job.encoder.source
    path = record_path(Study(job.root), job.encoder, job.protocol, job.evaluation, source.digest)
    assert path is not None  # this job runs after the run that it needs
    keep = path.with_suffix("")
    model = _frozen_encoder(job.root, job.encoder, job.evaluation, device, threads, keep)
    result = chosen.run(model, chosen.Config(), job.evaluation.probe_seed)
    record = write_record(job, result, model.labels, device_name(device), time.monotonic() - started)
    for file in glob_files(keep, "**/step-*"):  # checkpoints of what is done
        remove(file)
    if is_local(keep):  # the empty folders; a store has none
        shutil.rmtree(keep, ignore_errors=True)
    return record
