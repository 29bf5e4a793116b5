"""Defines the records that a study keeps on disk as JSON, each with its version: a public contract.

| file | record |
|---|---|
| `pretrain/*/encoder.json`, `pretrain/*/steps/*/encoder.json`, `encoders/*/encoder.json` | `EncoderRecord` |
| `evaluate/*/*.json` | `EvaluationRecord` |
| `pretrain/*/checkpoints/step-*.json` | `CheckpointManifest` |
| `study.json` | `StudyRecord`, see ssl_core/storage/study_record.py |
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from ssl_core.storage.record import Record


@dataclass(frozen=True, kw_only=True)
class CheckpointManifest(Record):
    """Says that a checkpoint is complete.

    Attributes:
        step: Completed optimizer steps.
        sha256: Of the file of the same name that ends with .pt.
    """

    step: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """Says how an encoder was pretrained, and what that cost.

    Attributes:
        task: The pretext task.
        run: The run's name, <task>-<hash of all that decides the weights>.
        data: The dataset as --data named it.
        size: Side in pixels of the images.
        dataset: Digest of its images.
        steps: Optimizer steps.
        images: Images seen, each as often as it was seen.
        macs: Multiply-accumulates of the encoder, forward and backward.
        seconds: Training time of all attempts, as far as it was not lost.
        restarts: How often training was interrupted and continued.
        device: The GPU's name, or "cpu".
        workers: Worker processes in the end.
        device_hours: Hours times devices.
        peak_bytes: Most memory of the first worker: the GPU's, or the process's on a CPU.
        pretext: The last loss, and accuracy where the task has one.
        skipped: Files that could not be decoded.
    """

    task: str
    run: str
    data: str
    size: int
    dataset: str
    steps: int
    images: int
    macs: int
    seconds: float
    restarts: int
    device: str
    workers: int
    device_hours: float
    peak_bytes: int
    pretext: dict[str, float]
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class EncoderRecord(Record):
    """Describes the weights in encoder.safetensors beside it. Its presence means that they are complete.

    Attributes:
        encoder: The architecture, as --encoder names it.
        size: Side in pixels of the images that it was built for.
        seed: That it was initialized with.
        mean: Of each channel, in pixel units, by which its pixels are normalized.
        std: Of each channel, in pixel units.
        normalization: "dataset" if pixels are normalized by `mean` and `std`, "image" if each image is by its own.
        digest: sha256 of the weights.
        training: How it was pretrained; None if that is not known.
        label: What an encoder from elsewhere is called here; empty for a run of this study.
        spec: How an encoder from elsewhere was asked for.
        unused: Tensors of its file that are not part of the encoder.
    """

    VERSION: ClassVar[int] = 2

    encoder: str
    size: int
    seed: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    normalization: str
    digest: str
    training: TrainingRecord | None = None
    label: str = ""
    spec: str = ""
    unused: tuple[str, ...] = ()


@dataclass(frozen=True)
class EncoderIdentity:
    """Says which encoder was evaluated, and on which images: a run's, one from elsewhere, or a baseline.

    Attributes:
        task: The run's task, the label of an encoder from elsewhere, random-init or raw-pixels.
        encoder: The architecture.
        run: The run's name; None if it was not pretrained in this study.
        data: The dataset that it is evaluated on.
        size: Side in pixels of the images.
        seed: Of the pretraining, or of a random initialization.
        normalization: "dataset" or "image", see EncoderRecord.
        external: The name of its folder in encoders/, if it is from elsewhere.
        stem: Side in pixels that its stem is built for, where that is another than `size` would give.
        step: Completed steps of the pretraining, if it is an encoder that was kept before the last.
    """

    task: str
    encoder: str
    run: str | None
    data: str
    size: int
    seed: int
    normalization: str
    external: str | None = None
    stem: int | None = None
    step: int | None = None


@dataclass(frozen=True, kw_only=True)
class DatasetIdentity:
    """Says what images an encoder was evaluated on.

    Attributes:
        name: For people.
        digest: Of the images.
        classes: How many classes it has; 0 without labels.
        class_names: Their names.
        images: Images of each split (train, val, test) that could be read.
        unread: By split, how many could not be read, and of how many.
        lacking: By split, how many classes have no image in it, and the names of a few.
    """

    name: str
    digest: str
    classes: int
    images: dict[str, int]
    unread: dict[str, tuple[int, int]] = field(default_factory=dict)
    lacking: dict[str, "MissingClasses"] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class MissingClasses:
    """Names classes that have no image in a split.

    Attributes:
        count: How many these are.
        names: The first few.
    """

    count: int
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ProtocolIdentity:
    """Says by what an encoder was evaluated.

    Attributes:
        name: The protocol.
        version: Of the protocol's code.
        features: Version of the code that extracts features.
        config: The protocol's options.
        num_labels: Labeled training images that a probe may use; 0 for all.
        val_fraction: Share of them that chooses.
        probe_seed: Decides which images these are, and their order.
        plugin: Digest of the source of a protocol that is not built in; None for one that is.
    """

    name: str
    version: int
    features: int
    config: dict[str, Any]
    num_labels: int
    val_fraction: float
    probe_seed: int
    plugin: str | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord(Record):
    """Holds what one protocol measured of one encoder on one dataset. Its presence means that this is done.

    Attributes:
        label: The encoder's name in the study.
        encoder: Which encoder.
        digest: sha256 of its weights, and of the pixel statistics of one from elsewhere.
        dataset: Which images.
        protocol: Which protocol, and its options.
        numbers: What was measured on test images; accuracies are fractions.
        chosen: What held-out training images chose.
        correct: Base64 of one bit for each test image, whether it was classified right; None if that has no meaning.
        map_draws: Base64 of float32, little-endian: the mean average precision, or the mean intersection over union, of
            test images drawn with replacement, a thousand times, the same ones for equally many images; None where
            images do not have several labels or masks.
        confusion: The confusion matrix of test images, (label, answer, images) for each cell that is not zero, classes
            by their places in `dataset.class_names`; empty where that has no meaning.
        points: A map of test images, (x, y, label, cell) for each: its place, from 0 to 1, left to right and up; its
            class, or -1; and which cell of the picture beside the record it is in, counted row by row in a square grid.
        notes: What limits the numbers, in sentences.
        seconds: How long it took.
        device: The GPU's name, or "cpu".
        finished: When, in UTC, as ISO 8601.
    """

    label: str
    encoder: EncoderIdentity
    digest: str
    dataset: DatasetIdentity
    protocol: ProtocolIdentity
    numbers: dict[str, float]
    chosen: dict[str, Any]
    correct: str | None
    notes: tuple[str, ...]
    seconds: float
    device: str
    finished: str
    confusion: tuple[tuple[int, int, int], ...] = ()
    map_draws: str | None = None
    points: tuple[tuple[float, float, int, int], ...] = ()
