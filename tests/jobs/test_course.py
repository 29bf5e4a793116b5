"""What is said of encoders along trainings and over budgets, of constructed answers."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import vl_convert
from support.comparison import N, row, three

from jobs.report import course_charts
from jobs.report.chart_style import Marks
from jobs.report.comparison import EncoderRow, by_dataset
from jobs.report.course import along_training, course_conclusions, over_lengths
from jobs.report.results_csv import as_csv

RNG = np.random.default_rng(5)
HARD = RNG.random((1, N))


def answers(share: float) -> np.ndarray:
    return HARD + 0.05 * RNG.normal(size=(3, N)) < share


def at(name: str, share: float, macs: float, steps: int) -> EncoderRow:
    """A recipe whose encoders are right on a share of images, and which cost so much."""
    made = row(name, answers(share), answers(0.3))
    trainings = tuple(replace(one, macs=int(macs), steps=steps, images=steps * 64) for one in made.trainings)
    return replace(made, trainings=trainings, recipe=name)


def length(name: str, share: float, macs: float) -> EncoderRow:
    return replace(at(name, share, macs, 10), name=f"{name} ({macs:g})")


def along(name: str, shares: list[float]) -> EncoderRow:
    """A training that was evaluated at quarters of its length."""
    *before, last = [at(name, share, i * 1e12, i * 100) for i, share in enumerate(shares, 1)]
    earlier = tuple(
        replace(one, encoders=tuple(replace(each, step=one.trainings[0].steps) for each in one.encoders))
        for one in before
    )
    return replace(last, earlier=earlier)


@pytest.fixture(scope="module")
def trained() -> list[EncoderRow]:
    shares = {"rises": [0.3, 0.4, 0.5, 0.6], "levels": [0.3, 0.5, 0.5, 0.5], "peaks": [0.4, 0.7, 0.6, 0.55]}
    return [three()[0], *(along(name, of) for name, of in shares.items())]


def test_who_rises_and_who_peaked(trained):
    (part,) = by_dataset(trained)
    rising, level, peaked = course_conclusions(part)
    assert rising.startswith("By linear, still rising when training ended, for each doubling of the cost: rises by +")
    assert level == "By linear, no longer rising beyond noise when training ended: levels."
    assert (
        peaked.startswith("By linear, better before the end: peaks at 50% of its length, +1") and "rises" not in peaked
    )
    (rises,) = (one for one in along_training(trained) if one.name == "rises")
    macs, means = np.array([2, 3, 4]), [one.mean_value("linear", "top1") for one in rises.rows[1:]]
    assert rises.trend("linear").mean == pytest.approx(np.polyfit(np.log2(macs), means, 1)[0])


def test_who_overtakes_whom():
    rows = [three()[0]]
    for budget, slow, fast in ((1e12, 0.3, 0.45), (2e12, 0.4, 0.46), (4e12, 0.5, 0.46), (8e12, 0.62, 0.47)):
        rows += [length("slow", slow, budget), length("fast", fast, budget)]
    (part,) = by_dataset(rows)
    (line,) = (line for line in course_conclusions(part) if "overtakes" in line)
    known = re.fullmatch(r"By linear, slow overtakes fast at about (.+), 95 % between (.+) and (.+) TMACs\.", line)
    assert known and 2 < float(known[2]) < float(known[1].removesuffix(" TMACs")) < float(known[3]) < 4
    assert {one.name: len(one.rows) for one in over_lengths(part.rows)} == {"slow": 4, "fast": 4}


def test_one_length_has_no_course():
    (part,) = by_dataset(three())
    assert course_conclusions(part) == [] and not along_training(part.rows) and not over_lengths(part.rows)


def test_charts_begin_before_the_training(trained):
    courses, marks = along_training(trained), Marks.of(trained)
    spec = course_charts.along(courses, "linear", marks)
    mine = [one for one in spec["data"]["values"] if one["encoder"] == "rises"]
    assert [one["TMACs of the encoder"] for one in mine] == [1, 2, 3, 4]
    assert [one["images seen"] for one in mine] == [6400, 12800, 19200, 25600]
    assert mine[-1]["value"] == pytest.approx(100 * trained[1].mean_value("linear", "top1"))
    before = replace(trained[1], baselines={"linear": trained[0].records["linear"]})
    spec = course_charts.along(along_training([before]), "linear", marks)
    assert [one["TMACs of the encoder"] for one in spec["data"]["values"]] == [0, 1, 2, 3, 4]
    assert spec["data"]["values"][0]["value"] == pytest.approx(100 * trained[0].mean_value("linear", "top1"))


def test_charts_compile(trained, capfd):
    rows = [length("rotnet", 0.3 + 0.1 * i, 2.0**i * 1e12) for i in range(3)]
    for spec in (
        course_charts.along(along_training(trained), "linear", Marks.of(trained)),
        course_charts.over_lengths(over_lengths(rows), "linear", Marks.of(rows)),
    ):
        text = vl_convert.vegalite_to_svg(json.dumps({**spec, "width": 600}))
        assert text.count("rotnet") or text.count("rises")
    assert "WARN" not in "".join(capfd.readouterr())


def test_every_step_has_rows_of_its_own(trained):
    lines = [line.split(",") for line in as_csv(by_dataset(trained)).splitlines()]
    found = [line[3] for line in lines if line[0] == "rises" and line[6] == "top1"]
    assert found == ["100", "200", "300", "400"]
