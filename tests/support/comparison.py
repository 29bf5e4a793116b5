"""Rows of a comparison, made up."""

from pathlib import Path

import numpy as np

from jobs.evaluation.encoders import EvaluatedEncoder
from jobs.evaluation.records import pack_bits
from jobs.report.collect import _gains
from jobs.report.comparison import EncoderRow
from jobs.study.folder import Study
from ssl_core.storage.records import (
    DatasetIdentity,
    EncoderIdentity,
    EvaluationRecord,
    ProtocolIdentity,
    TrainingRecord,
)

N = 400


def records(
    correct: np.ndarray, protocol: str = "linear", dataset: str = "shapes", **more
) -> tuple[EvaluationRecord, ...]:
    """Of as many seeds as `correct` [seeds, N] has rows."""
    return tuple(
        EvaluationRecord(
            label="made up",
            encoder=EncoderIdentity("rotnet", "convnet", f"rotnet-{i}", "shapes", 32, i, "dataset"),
            digest="0" * 64,
            dataset=DatasetIdentity(name=dataset, digest=dataset.ljust(64, "1"), classes=4, images={"test": len(one)}),
            protocol=ProtocolIdentity(
                name=protocol, version=1, features=1, config={}, num_labels=0, val_fraction=0.1, probe_seed=0
            ),
            numbers={"top1": float(one.mean()), **more},
            chosen={},
            correct=pack_bits(one),
            notes=(),
            seconds=1.0,
            device="cpu",
            finished="2026-01-01T00:00:00+00:00",
        )
        for i, one in enumerate(correct)
    )


def training(task: str, run: str, seconds: float = 10.0, data: str = "shapes") -> TrainingRecord:
    return TrainingRecord(
        task=task,
        run=run,
        data=data,
        size=32,
        dataset="1" * 64,
        steps=100,
        images=1000,
        macs=10**12,
        seconds=seconds,
        restarts=0,
        device="cpu",
        workers=1,
        device_hours=seconds / 3600,
        peak_bytes=10**9,
        pretext={},
    )


def row(
    task: str,
    correct: np.ndarray,
    base: np.ndarray | None = None,
    seconds: float = 10,
    encoder: str = "convnet",
    **more,
) -> EncoderRow:
    run = None if task == "random-init" else task
    judged = tuple(
        EvaluatedEncoder(task, encoder, run and f"{run}-{i}", "shapes", 32, i, "dataset") for i in range(len(correct))
    )
    trainings = tuple(training(task, one.run, seconds) for one in judged if one.run)
    mine = {"linear": records(correct, **more)}
    return EncoderRow(
        Study(Path("runs/x")),
        judged,
        task,
        mine,
        trainings,
        {} if base is None else _gains(mine, {"linear": records(base)}),
    )


def three() -> list[EncoderRow]:
    """Three seeds: rotnet is much better than jigsaw and than nothing, context is as good as rotnet but cheaper."""
    rng = np.random.default_rng(0)
    hard = rng.random((1, N))
    at = {name: hard + 0.1 * rng.normal(size=(3, N)) for name in ("floor", "rotnet", "jigsaw", "context")}
    floor = at["floor"] < 0.4
    return [
        row("random-init", floor),
        row("jigsaw", at["jigsaw"] < 0.4, floor),
        row("rotnet", at["rotnet"] < 0.6, floor),
        row("context", at["context"] < 0.599, floor, seconds=5),
    ]
