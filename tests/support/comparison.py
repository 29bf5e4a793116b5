"""Rows of a comparison, made up."""

from pathlib import Path

import numpy as np

from jobs.evaluation.encoders import EvaluatedEncoder
from jobs.evaluation.records import pack_bits
from jobs.report.collect import _gains
from jobs.report.comparison import EncoderRow
from jobs.study.folder import Study

N = 400


def cells(correct: np.ndarray, protocol: str = "linear", dataset: str = "shapes", **more) -> tuple[dict, ...]:
    """Of as many seeds as `correct` [seeds, N] has rows."""
    return tuple(
        {
            "numbers": {"top1": float(one.mean()), **more},
            "correct": pack_bits(one),
            "test_images": len(one),
            "dataset": dataset,
            "protocol": protocol,
        }
        for one in correct
    )


def row(task: str, correct: np.ndarray, base: np.ndarray | None = None, seconds: float = 10, **more) -> EncoderRow:
    run = None if task == "random-init" else task
    judged = tuple(
        EvaluatedEncoder(task, "convnet", run and f"{run}-{i}", "shapes", 32, i, "dataset") for i in range(len(correct))
    )
    described = tuple({"seconds": seconds, "images": 1000, "macs": 1e12, "pretext": {}} for _ in judged if run)
    mine = {"linear": cells(correct, **more)}
    return EncoderRow(
        Study(Path("runs/x")),
        judged,
        task,
        mine,
        described,
        {} if base is None else _gains(mine, {"linear": cells(base)}),
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
