"""Adds encoders from elsewhere to a study, to be evaluated beside its own.

They are kept in it, so that nothing has to be fetched or given again: `encoders/<label>-<digest>/`, and their list
in study.json.
"""

from dataclasses import dataclass, replace

import ssl_core.encoders.build as encoders
from jobs.config.evaluation import Evaluation
from jobs.config.recipe import resolve_data_path
from jobs.evaluation.encoders import RANDOM, EvaluatedEncoder, digest_with_statistics, from_run, on_datasets
from jobs.pretraining.encoder_files import write_weights
from jobs.study.folder import Study
from ssl_core.data.dataset import open_source
from ssl_core.encoders.pretrained import Pretrained, file_name, load_pretrained
from ssl_core.errors import UserError
from ssl_core.storage.files import exists
from ssl_core.storage.records import EncoderRecord


@dataclass(frozen=True)
class ExternalEncoder:
    """Holds an encoder that is to be kept in a study, and what it is evaluated as there."""

    evaluated: EvaluatedEncoder
    one: Pretrained
    record: EncoderRecord | None  # what its encoder.json will say; None at random initialization

    def save(self, study: Study) -> None:
        """Writes the encoder into the study, encoder.json last. One at random initialization needs no file."""
        folder = self.evaluated.folder(study)
        if self.one.encoder is None or self.record is None or folder is None or exists(folder / "encoder.json"):
            return
        write_weights(folder, self.one.encoder)
        self.record.write(folder / "encoder.json")


def load_external(spec: str, data: str, size: int | None) -> ExternalEncoder:
    """Loads the encoder that `spec` names.

    Args:
        spec: What `tilespin evaluate --encoder` takes, such as timm:resnet18.
        data: The dataset to evaluate it on, as --data takes it.
        size: The images' side in pixels; None for the dataset's own.

    Raises:
        UserError: If the encoder or the dataset cannot be opened, or the encoder cannot take images of this size.
    """
    one = load_pretrained(spec)
    source = open_source(data, size)
    data = resolve_data_path(data)
    stem = encoders.build_size(one.architecture, one.built, source.size)
    encoders.describe(encoders.build(one.architecture, stem or source.size, 0), one.architecture, source.size)
    at_random = EvaluatedEncoder(
        task=RANDOM,
        encoder=one.architecture,
        run=None,
        data=data,
        size=source.size,
        seed=one.seed,
        normalization="dataset",
        stem=stem,
    )
    if one.encoder is None:
        return ExternalEncoder(at_random, one, None)
    digest = encoders.digest(one.encoder)
    folder = f"{file_name(one.label)}-{digest_with_statistics(digest, one.mean, one.std)[:8]}"
    record = EncoderRecord(
        encoder=one.architecture,
        size=one.built,
        seed=one.seed,
        mean=one.mean,
        std=one.std,
        normalization=one.normalization,
        digest=digest,
        training=one.origin.training if one.origin else None,
        label=one.label,
        spec=spec,
        unused=one.unused,
    )
    evaluated = replace(at_random, task=one.label, normalization=one.normalization, external=folder)
    return ExternalEncoder(evaluated, one, record)


def list_encoders(study: Study, evaluation: Evaluation | None = None) -> list[EvaluatedEncoder]:
    """Returns all that a study has to evaluate except baselines: finished runs, the encoders that these kept before
    their last step, and the encoders added to it.

    Args:
        study: The study.
        evaluation: Says on which datasets runs are evaluated; None: as the study was last evaluated.
    """
    runs = [from_run(EncoderRecord.read(folder / "encoder.json")) for folder in study.runs()]
    kept = (EncoderRecord.read(folder / "encoder.json") for folder in study.runs_at())
    runs += [replace(from_run(one), step=one.training.steps) for one in kept if one.training]
    evaluation = evaluation or (Evaluation.of_study(study) if exists(study.file) else None)
    return [*on_datasets(runs, evaluation.transfer if evaluation else ()), *_saved_encoders(study)]


def _saved_encoders(study: Study) -> list[EvaluatedEncoder]:
    return [EvaluatedEncoder(**vars(one)) for one in study.read().encoders] if exists(study.file) else []


def add_external(study: Study, externals: list[ExternalEncoder]) -> None:
    """Keeps encoders in the study, and lists them in study.json."""
    known = _saved_encoders(study)
    for external in externals:
        external.save(study)
    both = dict.fromkeys([*known, *(external.evaluated for external in externals)])
    study.describe(encoders=tuple(both))


def choose_datasets(
    study: Study, evaluation: Evaluation, data: str | None, size: int | None
) -> list[tuple[str, int | None]]:
    """Returns the datasets and image sizes that external encoders are evaluated on.

    Args:
        study: The study, whose first encoder decides if nothing else does.
        evaluation: The transfer datasets, which decide if `data` is None.
        data: What was given by --data.
        size: What was given by --size.

    Raises:
        UserError: If nothing says which dataset.
    """
    if data is not None:
        return [(data, size)]
    if evaluation.transfer:
        return [(entry.data, size or entry.size) for entry in evaluation.transfer]
    known = list_encoders(study) if exists(study.file) else []
    if not known:
        raise UserError(f"{study.root}: no study here (expected {study.file}), or an empty one: --encoder needs --data")
    return [(known[0].data, size or known[0].size)]


def describe_loading(external: ExternalEncoder) -> str:
    """Returns one line on how an external encoder was read: its name, pixels' statistics, and what was left out."""
    one = external.one
    if one.encoder is None:
        return f"{one.label}: at random initialization"
    pixels = (
        "each image by its own statistics"
        if one.normalization == "image"
        else (f"pixels by mean {_numbers(one.mean)} and std {_numbers(one.std)} of 255")
    )
    left = f"; left out: {', '.join(one.unused[:4])}{' …' if len(one.unused) > 4 else ''}" if one.unused else ""
    return "; ".join([f"{one.label}: {one.architecture}, {pixels}{left}", *one.notes])


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.1f}" for value in values)
