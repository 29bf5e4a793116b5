"""Which label-free number predicted transfer, of constructed records."""

import json
from dataclasses import replace

import numpy as np
import pytest
import vl_convert
from scipy.stats import kendalltau
from support.comparison import N, records, row

from jobs.report.comparison import EncoderRow, by_dataset
from jobs.report.predictor_chart import heat_map
from jobs.report.predictors import predictor_conclusions, predictors, predictors_csv

RNG = np.random.default_rng(2)
HARD = RNG.random(N)


def recipe(task: str, lr: float, good: float, rankme: float, noise: float) -> EncoderRow:
    """Three seeds, each as good as its effective rank says within its task."""
    made = row(task, np.stack([good + 0.01 * i > HARD for i in range(3)]))
    measured = tuple(records(np.ones((1, N), bool), "collapse", rankme=rankme + i, std=noise)[0] for i in range(3))
    return replace(made, name=f"{task} (lr {lr})", records={**made.records, "collapse": measured})


@pytest.fixture(scope="module")
def rows() -> list[EncoderRow]:
    """Within each task a higher rank is better; the tasks that are better have lower ranks."""
    found = []
    for i, task in enumerate(("context", "jigsaw", "pirl", "rotnet", "simclr", "vicreg")):
        for k in range(3):
            good, rank = 0.2 + 0.1 * i + 0.02 * k, 200 - 30 * i + 5 * k
            found.append(recipe(task, k, good, rank, float(RNG.normal())))
    return found


def test_tau_within_and_across_tasks(rows):
    (part,) = by_dataset(rows)
    found = {one.measure: one for one in predictors(part)}
    rank = found["RankMe"]
    assert rank.protocol == "linear" and rank.within.items == 54 and rank.across.items == 54
    assert rank.within.tau > 0.9 and rank.within.low > 0.5 and rank.across.high < 0
    pairs = (pair for row in rows for pair in zip(row.records["collapse"], row.records["linear"]))
    points = [(of.numbers["rankme"], one.numbers["top1"]) for of, one in pairs]
    assert rank.across.tau == pytest.approx(kendalltau(*zip(*points)).statistic)
    assert found["spread"].within.low < 0 < found["spread"].within.high


def test_what_is_said(rows):
    (part,) = by_dataset(rows)
    found = predictors(part)
    within, across = predictor_conclusions(found)
    assert within.startswith("Among encoders of one task, without labels watch RankMe: higher is better by linear")
    assert across.startswith("Across tasks, without labels watch RankMe: lower is better by linear, Kendall's tau -0.")
    noise = [one for one in found if one.measure == "spread"]
    assert predictor_conclusions(noise)[0] == (
        "Among encoders of one task, no number without labels predicted linear beyond noise, of 1 that were tried."
    )
    lines = predictors_csv({"shapes": found}).splitlines()
    assert lines[0] == "dataset,protocol,measure,pairs,tau,low,high,encoders" and len(lines) == 1 + 2 * len(found)


def test_few_encoders_say_nothing(rows):
    (part,) = by_dataset(rows[:2])
    assert predictors(part) == [] and predictor_conclusions([]) == [] and heat_map([]) is None


def test_heat_map_compiles(rows, capfd):
    (part,) = by_dataset(rows)
    spec = heat_map(predictors(part))
    assert {one["measure"] for one in spec["data"]["values"]} == {"RankMe", "spread"}
    assert {one["sure"] for one in spec["data"]["values"] if one["measure"] == "RankMe"} == {True}
    assert "RankMe" in vl_convert.vegalite_to_svg(json.dumps({**spec, "width": 500}))
    assert "WARN" not in "".join(capfd.readouterr())
