"""Describes and writes the encoder of a training: that of its last step, and those that are kept before it."""

import resource
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save as safetensors_bytes

import ssl_core.encoders.build as encoders
from jobs.config.runtime import device_name
from jobs.config.start import load_start
from ssl_core.data.dataset import Source
from ssl_core.storage.async_writer import AsyncWriter
from ssl_core.storage.files import write_bytes
from ssl_core.storage.records import EncoderRecord, TrainingRecord
from ssl_core.task import InputFormat, PretextModel, task_name

if TYPE_CHECKING:
    from jobs.pretraining.run import Training


@dataclass(frozen=True, kw_only=True)
class Spent:
    """Says what a training has cost after a number of steps, and how well it did.

    Attributes:
        step: Completed optimizer steps.
        macs: Multiply-accumulates of the encoder for one image, forward and backward.
        seconds: Of all attempts, as far as they were not lost.
        restarts: How often it was interrupted and continued.
        workers: Worker processes.
        pretext: Means of the loss and the task's own metrics over the last steps.
        skipped: Names of files that could not be decoded.
    """

    step: int
    macs: int
    seconds: float
    restarts: int
    workers: int
    pretext: dict[str, float]
    skipped: tuple[str, ...] = ()


def describe_encoder(
    training: "Training", source: Source, model: PretextModel, format: InputFormat, spent: Spent
) -> EncoderRecord:
    """Returns what encoder.json says of the encoder that a model has now.

    Args:
        training: The run.
        source: Its dataset.
        model: The module that it trains.
        format: The pixels that it takes.
        spent: What it has cost.
    """
    recipe, device = training.recipe, next(model.parameters()).device
    images = spent.step * recipe.task.batch
    start = load_start(recipe.init)
    return EncoderRecord(
        encoder=recipe.encoder,
        size=start.built if start else source.size,
        seed=recipe.seed,
        mean=format.mean,
        std=format.std,
        normalization=model.task.normalization,
        digest=encoders.digest(model.encoder),
        training=TrainingRecord(
            task=task_name(recipe.task),
            run=training.name,
            data=recipe.data,
            size=source.size,
            dataset=source.digest,
            steps=spent.step,
            images=images,
            macs=spent.macs * images,
            seconds=spent.seconds,
            restarts=spent.restarts,
            device=device_name(str(device)),
            workers=spent.workers,
            device_hours=spent.seconds * spent.workers / 3600,
            peak_bytes=peak_bytes(device),
            pretext={name: value for name, value in spent.pretext.items() if name in ("loss", "accuracy")},
            skipped=spent.skipped,
        ),
    )


def write_weights(folder: Path, encoder: torch.nn.Module) -> Path:
    """Writes an encoder's weights as encoder.safetensors and returns the file's path."""
    path = folder / "encoder.safetensors"
    write_bytes(path, safetensors_bytes(encoders.weights(encoder)))
    return path


def keep_encoder(training: "Training", model: PretextModel, record: EncoderRecord, writer: AsyncWriter) -> None:
    """Keeps the encoder that a model has now beside that of its last step, written in the background.

    What is put into `writer` later, such as the checkpoint of this step, is written after it: no training that
    continues passes over a step whose encoder is missing.

    Args:
        training: The run.
        model: The module that it trains.
        record: What is said of its encoder.
        writer: Writes it, encoder.json last.
    """
    assert record.training is not None
    step = record.training.steps
    folder, data = training.folder_at(step), safetensors_bytes(encoders.weights(model.encoder))

    def write() -> None:
        write_bytes(folder / "encoder.safetensors", data)
        record.write(folder / "encoder.json")

    writer.put(f"encoder of step {step}", write)


def begin_peak(device: torch.device) -> None:
    """Forgets what trainings before this one in the same process needed of a GPU. On a CPU nothing is forgotten."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int:
    """Returns the most memory that this worker had: of its GPU since `begin_peak`, or of the process on a CPU.

    It waits for nothing.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
