"""The report: whatever its names and numbers are, it is written, in one file, and says which chart it lacks."""

import base64
import errno
import hashlib
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import vl_convert
from PIL import Image
from support.comparison import records, row, three

import jobs.report.page as page_parts
from jobs.evaluation.records import path_of
from jobs.report import html
from jobs.report.comparison import EncoderRow, by_dataset, rank_rows
from jobs.report.conclusions import format_number
from jobs.report.html import write_report
from jobs.report.over_datasets import over_datasets
from jobs.report.predictors import predictors
from jobs.report.results_csv import as_csv
from jobs.study.folder import Study
from ssl_core.evaluation.protocols.retrieval import contact_sheet
from ssl_core.storage.files import write_json

pytestmark = pytest.mark.slow

NAMES = ["</script><script>alert('ü')</script>", "cost $x_{ of $y", "_hidden", "日本語 " + "long " * 60]
LACKS = "The report lacks"


def page_of(tmp_path: Path, rows: list[EncoderRow], losses: str = '{"step": 1, "images": 8, "loss": 0.5}\n') -> str:
    """The report of a study that holds these rows."""
    study = Study(tmp_path)
    study.describe(evaluation={"protocols": ["linear"]})
    for run in (each.run for one in rows for each in one.encoders if each.run):
        write_json(study.run(run) / "config.json", {"task": run})
        (study.run(run) / "metrics.jsonl").write_text(losses)
    parts = by_dataset([replace(one, study=study) for one in rows])
    write_report(study, parts, {part.dataset: predictors(part) for part in parts}, over_datasets(parts))
    return study.report.read_text()


def specs(page: str) -> list[dict]:
    """The specifications of its charts."""
    return [json.loads(one) for one in re.findall(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)]


@pytest.mark.filterwarnings("error", "ignore::ResourceWarning")  # garbage of other tests is not what is drawn
def test_any_name_can_be_drawn(tmp_path):
    """As text: neither as markup, nor as mathematics, nor left out of a legend, nor so long that nothing else fits."""
    rows = [replace(one, name=name) for one, name in zip(three(), [*NAMES[1:3], NAMES[0], NAMES[3]])]
    page = page_of(tmp_path, rows)
    assert "<script>alert" not in page and page.count("&lt;script&gt;") >= 2
    assert LACKS not in page and len(specs(page)) == 3
    for spec in specs(page):
        text = vl_convert.vegalite_to_svg({**spec, "width": 600})
        assert "alert(" in text and "_hidden" in text and "日本語" in text and "long " * 60 not in text
    assert "cost $x_{ of $y" in vl_convert.vegalite_to_svg(specs(page)[0])


def test_a_name_that_is_no_text_is_written_all_the_same(tmp_path):
    """Of a folder whose name is bytes in another encoding, as of a dataset."""
    page = page_of(tmp_path, [replace(one, name=f"m\udcfc{i}") for i, one in enumerate(three())])
    assert LACKS not in page and "m\\udcfc0" in page


def test_the_page_is_one_file_that_asks_for_nothing(tmp_path):
    """Its policy allows its own two scripts by their hashes, and no other; nothing in it has an address elsewhere."""
    page = page_of(tmp_path, three())
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page)
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in scripts]
    allowed = dict(one.strip().split(" ", 1) for one in policy.split(";"))
    assert len(scripts) == 2 and allowed["script-src"] == " ".join(f"'sha256-{one}'" for one in hashes)
    assert allowed["default-src"] == "'none'" and allowed["img-src"] == "data:"
    rest = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"https?://", rest) and not re.search(r'(?:src|href)="(?!data:|#)', rest)
    for anchor in re.findall(r'href="#([^"]*)"', rest):
        assert rest.count(f'id="{anchor}"') == 1
    assert rest.index("Best task by linear") < rest.index('class="chart"') < rest.index('<table class="sortable">')


@pytest.mark.filterwarnings("error", "ignore::ResourceWarning")
def test_a_chart_that_fails_costs_no_report(tmp_path, capsys):
    """A row of metrics.jsonl that lacks its images, which somebody has edited."""
    page = page_of(tmp_path, three(), losses='{"step": 1, "loss": 0.5}\n')
    assert "The report lacks the chart “pretext loss”: KeyError: &#39;images&#39;" in page
    assert len(specs(page)) == 2 and "Pairwise comparisons" in page
    assert "warning: the report lacks the chart “pretext loss”: KeyError" in capsys.readouterr().err


def test_without_charts_there_are_tables_and_sentences(tmp_path, monkeypatch, capsys):
    def fails():
        raise ImportError("no such library")

    monkeypatch.setattr(html, "chart_library", fails)
    page = page_of(tmp_path, three())
    assert "The report lacks its charts: ImportError: no such library" in page and page.count("<script>") == 1
    assert "Best task by linear" in page and page.count('<table class="sortable">') == 2
    assert "warning: the report lacks its charts" in capsys.readouterr().err


def test_the_chart_library_is_bundled_once_a_machine(tmp_path, monkeypatch):
    """And again where there is no room for it; it is the same, whether bundled or found."""
    monkeypatch.setenv("TILESPIN_CACHE", str(tmp_path))
    made = page_parts.chart_library.__wrapped__()
    assert str(made.text) == vl_convert.javascript_bundle(page_parts.GLOBALS)
    with monkeypatch.context() as patch:
        patch.setattr(page_parts, "_bundle", None)  # calling it would fail
        assert page_parts.chart_library.__wrapped__() == made
    monkeypatch.setattr(page_parts, "cached_arrays", disk_full)
    assert page_parts.chart_library.__wrapped__() == made


def disk_full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_tables_sort_by_numbers(tmp_path):
    """Each cell with a number has it as it is, whatever the text says."""
    rows = three()
    (table, *_) = re.findall(r'<table class="sortable">.*?</table>', page_of(tmp_path, rows), re.DOTALL)
    shown = {name: cells for name, cells in re.findall(r"</i>([^<]*)</td>(.*?)</tr>", table, re.DOTALL)}
    for one in rows:
        first = re.search(r'<td data-value="([^"]*)">([^<]*)</td>', shown[one.name])
        assert float(first[1]) == one.headline("linear")[0] and first[2] == format_number(one, "linear")


def test_one_query_has_the_neighbors_of_every_encoder(tmp_path):
    """A sheet is in the page once, its rows are parts of it; one that cannot be read is named."""
    study, rows = Study(tmp_path), three()[1:]
    queries = np.zeros((3, 8, 8, 3), np.uint8)
    for i, one in enumerate(rows):
        (found,) = records(one.correct("linear")[:1], "retrieval")
        found = replace(found, digest=str(i) * 64, numbers={"precision@8": 0.5}, correct=None)
        rows[i] = replace(one, records={**one.records, "retrieval": (found,)})
        path = path_of(study, found).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(contact_sheet(queries, np.zeros((3, 2, 8, 8, 3), np.uint8), None)).save(path)
    path.write_bytes(path.read_bytes()[:10])
    page = page_of(tmp_path, rows)
    assert f"The report lacks the nearest neighbors of {rows[-1].name}: UnidentifiedImageError" in page
    (first, *others) = re.findall(r'<div class="query">.*?</div>\n</div>', page, re.DOTALL)
    assert len(others) == 2 and page.count("background-image: url(data:image/png;base64,") == 2
    assert re.findall(r'by (\w+)"', first) == ["jigsaw", "rotnet"] and "Other queries (1)" in page
    assert [re.findall(r"background-position: 0 ([\d.]+)%", one) for one in (first, *others)] == [
        *(["0.000"] * 2, ["50.000"] * 2, ["100.000"] * 2),
    ]


def test_several_datasets_begin_with_what_holds_over_all(tmp_path):
    rows = [replace(one, baselines=three()[0].records) for one in three()[1:]]
    there = [
        replace(
            one,
            encoders=tuple(replace(each, data="birds") for each in one.encoders),
            records={"linear": records(one.correct("linear"), dataset="birds")},
        )
        for one in rows
    ]
    page = page_of(tmp_path, [*rows, *there])
    assert page.index("Best mean rank by linear over 2 datasets") < page.index('class="chart"')
    assert len(re.findall(r'<h3 id="transfer-linear-probe(?:-2)?"', page)) == 2
    assert page.count("<details><summary>") == 3  # configurations: each run once
    assert specs(page)[0]["description"] == "Mean gain over datasets" and LACKS not in page


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
    assert LACKS not in page_of(tmp_path, rows)


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
    assert LACKS not in page and page.count("encoder 119") >= 2
    assert json.loads((tmp_path / "study.json").read_text())["evaluation"]
