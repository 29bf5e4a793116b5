"""Rows of several seeds: their means, intervals, pairs, and what is said of them."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from jobs.cells import Judged, packed
from jobs.layout import Study
from jobs.results import Row, _gains, as_csv, by_dataset, measured, pairs
from jobs.verdicts import conclusions, number
from ssl_core.evaluators.intervals import crossed, wilson

N = 400


def cells(correct: np.ndarray, protocol: str = "linear", dataset: str = "shapes", **more) -> tuple[dict, ...]:
    """Of as many seeds as `correct` [seeds, N] has rows."""
    return tuple(
        {"numbers": {"top1": float(one.mean()), **more}, "correct": packed(one), "test_images": len(one),
         "dataset": dataset, "protocol": protocol} for one in correct
    )  # fmt: skip


def row(task: str, correct: np.ndarray, base: np.ndarray | None = None, seconds: float = 10, **more) -> Row:
    run = None if task == "random-init" else task
    judged = tuple(
        Judged(task, "convnet", run and f"{run}-{i}", "shapes", 32, i, "dataset") for i in range(len(correct))
    )
    described = tuple({"seconds": seconds, "images": 1000, "macs": 1e12, "pretext": {}} for _ in judged if run)
    mine = {"linear": cells(correct, **more)}
    return Row(Study(Path("runs/x")), judged, task, mine, described,
               {} if base is None else _gains(mine, {"linear": cells(base)}))  # fmt: skip


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Three seeds: rotnet is much better than jigsaw and than nothing, context is as good as rotnet but cheaper."""
    rng = np.random.default_rng(0)
    hard = rng.random((1, N))
    at = {name: hard + 0.1 * rng.normal(size=(3, N)) for name in ("floor", "rotnet", "jigsaw", "context")}
    floor = at["floor"] < 0.4
    return [
        row("random-init", floor), row("jigsaw", at["jigsaw"] < 0.4, floor), row("rotnet", at["rotnet"] < 0.6, floor),
        row("context", at["context"] < 0.599, floor, seconds=5),
    ]  # fmt: skip


def test_a_row_is_the_mean_of_its_seeds(rows):
    rotnet = rows[2]
    correct = rotnet.correct("linear")
    assert correct.shape == (3, N)
    value, low, high = rotnet.headline("linear")
    assert value == pytest.approx(correct.mean()) and (low, high) == crossed(correct).ends and low < value < high
    assert rotnet.headline("knn") is None and number(rotnet, "knn") == "-"
    assert number(rotnet, "linear").startswith(f"{100 * value:.1f} ±")


def test_one_seed_has_wilsons_interval():
    right = np.arange(N)[None] < 300
    assert row("rotnet", right).headline("linear")[1:] == wilson(right[0])


def test_gains_are_over_the_floor_of_the_same_seed(rows):
    by = {one.name: one for one in rows}
    gain = by["rotnet"].gains["linear"]
    difference = by["rotnet"].correct("linear").mean() - by["random-init"].correct("linear").mean()
    assert gain.mean == pytest.approx(difference) and by["rotnet"].verdict("linear") == "better than random"
    assert by["jigsaw"].verdict("linear") == "within noise of random" and by["random-init"].verdict("linear") == ""


def test_pairs_say_what_is_within_noise(rows):
    found = {(pair.better.name, pair.worse.name): pair for pair in pairs(rows, "linear")}
    assert len(found) == 3 and all(pair.difference.mean >= 0 for pair in found.values())
    clear = found["rotnet", "jigsaw"]
    assert clear.told == "better" and clear.difference.p <= clear.adjusted < 0.05
    assert next(pair for both, pair in found.items() if "jigsaw" not in both).told == "within noise"


def test_it_is_said(rows):
    (part,) = by_dataset(rows)
    assert [one.kind for one in part] == ["floor", "task", "task", "task"] and part[1].name == "jigsaw"
    assert measured(part) == ("linear",)
    said = "\n".join(conclusions(part, "linear"))
    best, second = part[3].name, part[2].name
    assert f"Best task by linear: {best}" in said and f"Within noise of it: {second}." in said
    assert ("The cheapest of these is context, 5 s against 10 s." in said) == (best == "rotnet")
    assert "jigsaw is within noise of random at this budget." in said


def test_the_table_has_a_row_for_each_number(rows):
    found = list(csv.DictReader(io.StringIO(as_csv(rows))))
    by = {(line["task"], line["metric"]): line for line in found}
    assert all(line["seeds"] == "3" and line["dataset"] == "shapes" for line in found)
    gain = rows[2].gains["linear"]
    assert float(by["rotnet", "top1/gain-over-random-init"]["low"]) == gain.low
    assert float(by["rotnet", "top1/over/jigsaw/p"]["value"]) < 0.05
    assert by["rotnet", "top1"]["pretrain_run"] == "rotnet-0 rotnet-1 rotnet-2"
    assert ("jigsaw", "top1/over/rotnet") not in by


def test_other_test_images_are_not_compared(rows):
    """Of another dataset, or another number of them."""
    shorter = row("other", rows[1].correct("linear")[:, :100])
    elsewhere = Row(**{**vars(rows[1]), "cells": {"linear": cells(rows[1].correct("linear"), dataset="else")}})
    found = pairs([rows[2], shorter, elsewhere], "linear")
    assert found == [] and len(by_dataset([rows[2], elsewhere])) == 2
