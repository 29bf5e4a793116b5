"""The report: whatever its names and numbers are, it is written, and says which figure could not be drawn."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.comparison import records, row, three

from jobs.report import figures
from jobs.report.comparison import EncoderRow, as_csv, by_dataset, rank_rows
from jobs.report.conclusions import format_number
from jobs.report.figure_style import figure_to_svg
from jobs.report.html import write_report
from jobs.study.folder import Study
from ssl_core.storage.files import write_json

pytestmark = pytest.mark.slow

NAMES = ["<script>alert('ü')</script>", "cost $x_{ of $y", "_hidden", "日本語 " + "long " * 60]


def page_of(tmp_path: Path, rows: list[EncoderRow], losses: str = '{"step": 1, "images": 8, "loss": 0.5}\n') -> str:
    """The report of a study that holds these rows."""
    study = Study(tmp_path)
    study.describe(evaluation={"protocols": ["linear"]})
    for run in (each.run for one in rows for each in one.encoders if each.run):
        write_json(study.run(run) / "config.json", {"task": run})
        (study.run(run) / "metrics.jsonl").write_text(losses)
    write_report(study, by_dataset([replace(one, study=study) for one in rows]))
    return study.report.read_text()


@pytest.mark.filterwarnings("error", "ignore::ResourceWarning")  # garbage of other tests is not what is drawn
def test_any_name_can_be_drawn(tmp_path):
    """As text: neither as markup, nor as mathematics, nor left out of a legend, nor so long that nothing else fits."""
    rows = [replace(one, name=name) for one, name in zip(three(), NAMES)]
    page = page_of(tmp_path, rows)
    assert "<script>" not in page and page.count("&lt;script&gt;") == 2
    assert "could not be drawn" not in page and page.count("<svg") == 3
    for svg in page.split("<svg")[1:]:
        assert "cost $x_{ of $y" in svg.partition("</svg>")[0] and "_hidden" in svg
        assert "日本語" in svg and "long " * 60 not in svg.partition("</svg>")[0]


def test_a_figure_that_fails_costs_no_report(tmp_path, capsys):
    """A row of metrics.jsonl that lacks its images, which somebody has edited."""
    page = page_of(tmp_path, three(), losses='{"step": 1, "loss": 0.5}\n')
    assert "The figure “pretext loss” could not be drawn: KeyError: &#39;images&#39;" in page
    assert page.count("<svg") == 2 and "Task against task" in page
    assert "warning: the report lacks the figure pretext loss: KeyError" in capsys.readouterr().err


@pytest.mark.filterwarnings("error", "ignore::ResourceWarning")  # garbage of other tests is not what is drawn
@pytest.mark.parametrize("value", [0.0, -3.0, 1e30])
def test_any_value_can_be_drawn(tmp_path, value):
    """Of an accuracy, of a protocol where lower is better, and of any other measure, for one seed and more."""
    right = np.full((2, 3), value > 0)
    rows = [row("random-init", right[:1]), row("rotnet", right[:1], right[:1]), row("pirl", right, right)]
    for protocol, name in (("invariance", "rotation"), ("collapse", "rankme")):
        made = [records(one.correct("linear"), protocol, **{name: value}) for one in rows]
        rows = [
            replace(one, records={**one.records, protocol: tuple(replace(each, correct=None) for each in of)})
            for one, of in zip(rows, made)
        ]
    assert "could not be drawn" not in page_of(tmp_path, rows)
    for protocol in ("linear", "invariance", "collapse"):
        figure_to_svg(figures.ranking(rows, protocol))
        figure_to_svg(figures.cost(rows, protocol))


def test_what_is_not_finite_was_not_measured(tmp_path):
    """As cells of an earlier version may have it: no number, no place before what has one, no word in results.csv."""
    one, other = (row(task, np.arange(400)[None] < 100) for task in ("rotnet", "pirl"))
    numbers = {"rotation": math.nan, "crop": math.inf, "flip": 0.5}
    bad = replace(one.records["linear"][0], numbers=numbers, correct=None)
    good = replace(bad, numbers={"rotation": 0.25})
    rows = [replace(one, records={"invariance": (bad,)}), replace(other, records={"invariance": (good,)})]
    assert format_number(rows[0], "invariance") == "-" and rows[0].mean_values("invariance") == {"flip": 0.5}
    assert [each.name for each in rank_rows(rows, "invariance")] == ["rotnet", "pirl"]
    assert "nan" not in as_csv(by_dataset(rows)) and "inf," not in as_csv(by_dataset(rows))
    assert "could not be drawn" not in page_of(tmp_path, rows)


def test_an_encoder_that_failed_everywhere_is_still_in_the_table():
    failed = replace(three()[1], records={}, gains={})
    (part,) = by_dataset([three()[0], failed])
    assert [one.name for one in part.rows] == ["random-init", "jigsaw"] and format_number(failed, "linear") == "-"


def test_seeds_that_read_other_numbers_of_images_are_not_paired():
    """A file that could not be read for a while: an interval over seeds alone, and no difference from the floor."""
    right = np.arange(40)[None] < 30
    uneven = (*records(right), *records(right[:, :39]))
    one = replace(row("rotnet", np.repeat(right, 2, 0), np.repeat(right, 2, 0)), records={"linear": uneven})
    assert one.correct("linear") is None
    value, low, high = one.headline("linear")
    assert low < value < high


def test_hundreds_of_encoders(tmp_path):
    right = np.arange(40)[None] < 30
    brought = row("other", right)
    brought = replace(brought, encoders=tuple(replace(each, external="folder", run=None) for each in brought.encoders))
    many = [replace(brought, name=f"encoder {i}", trainings=()) for i in range(120)]
    page = page_of(tmp_path, many)
    assert "could not be drawn" not in page and page.count("encoder 119") >= 2
    assert json.loads((tmp_path / "study.json").read_text())["evaluation"]
