"""Maps of test images in the report: the same images for each encoder, out of one sheet."""

import base64
import io
import json
import re
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
import vl_convert
from PIL import Image
from support.comparison import records, three

from jobs.evaluation.records import path_of
from jobs.report.chart_style import Marks
from jobs.report.comparison import EncoderRow, by_dataset
from jobs.report.html import write_report
from jobs.report.image_map import image_maps
from jobs.study.folder import Study
from ssl_core.storage.files import write_json
from ssl_core.storage.records import EvaluationRecord

pytestmark = pytest.mark.slow
SHADES = [10, 90, 170, 250, 50]  # of five images, in a grid of 3 x 3


def mapped(study: Study, one: EncoderRow, i: int, labels: list[int], names: tuple[str, ...]) -> EncoderRow:
    """The row with a map, on which the images are in another order for each encoder."""
    (found,) = records(one.correct("linear")[:1], "tsne")
    cells = np.roll(np.arange(5), i).tolist()
    points = tuple((k / 5, 1 - k / 5, label, cell) for k, (label, cell) in enumerate(zip(labels, cells)))
    dataset = replace(found.dataset, classes=len(names), class_names=names)
    found = replace(found, digest=str(i) * 64, numbers={"trustworthiness": 0.9}, correct=None, points=points)
    found = replace(found, dataset=dataset)
    sheet = np.full((9, 4, 4, 3), 128, np.uint8)
    sheet[cells] = np.array(SHADES, np.uint8)[:, None, None, None]
    path = path_of(study, found).with_suffix(".png")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = sheet.reshape(3, 3, 4, 4, 3).swapaxes(1, 2).reshape(12, 12, 3)
    Image.fromarray(picture).resize((96, 96), Image.Resampling.NEAREST).save(path)
    found.write(path.with_suffix(".json"))
    return replace(
        one, study=study, records={**one.records, "tsne": (EvaluationRecord.read(path.with_suffix(".json")),)}
    )


def rows_with_maps(tmp_path, labels=(0, 1, 1, 0, 1), names=("cat", "dog")) -> tuple[Study, list[EncoderRow]]:
    study = Study(tmp_path)
    return study, [mapped(study, one, i, list(labels), names) for i, one in enumerate(three())]


def spec_of(block: str) -> dict:
    return json.loads(re.findall(r'<script type="application/json">(.*?)</script>', block, re.DOTALL)[0])


def test_the_best_task_and_its_floor_come_first_and_share_a_sheet(tmp_path, capfd):
    study, rows = rows_with_maps(tmp_path)
    found = image_maps(study, rows, Marks.of(rows))
    assert [one.mark.label for one in found.maps] == ["context", "random-init", "rotnet", "jigsaw"] and found.classes
    kind, data = found.sheet.split(",")
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("L"))
    assert kind == "data:image/jpeg;base64" and sheet.shape == (96, 96) and found.across == 3
    for one in found.maps:
        spec = spec_of(one.chart)
        for k, value in enumerate(spec["data"]["values"]):
            y, x = divmod(value["tile"], found.across)
            assert abs(int(sheet[32 * y + 16, 32 * x + 16]) - SHADES[k]) < 4, "the image under the point"
            assert (value["x"], value["class"]) == (k / 5, "cat" if k in (0, 3) else "dog")
        text = vl_convert.vegalite_to_svg({**spec, "width": 400}, show_warnings=True)
        assert ">cat<" in text and ">dog<" in text
    assert "WARN" not in "".join(capfd.readouterr())


def test_without_labels_and_with_very_many_classes_there_is_one_color(tmp_path, capfd):
    names = tuple(f"class {i}" for i in range(30))
    for labels, of in (([-1] * 5, ()), (range(5), names)):
        study, rows = rows_with_maps(tmp_path, labels, of)
        found = image_maps(study, rows, Marks.of(rows))
        spec = spec_of(found.maps[0].chart)
        assert ("scheme" in json.dumps(spec)) == (len(of) > 0) and found.classes == (len(of) > 0)
        assert vl_convert.vegalite_to_svg({**spec, "width": 400}, show_warnings=True)
    assert "WARN" not in "".join(capfd.readouterr())


def test_the_page_has_the_maps_and_says_what_it_lacks(tmp_path):
    study, rows = rows_with_maps(tmp_path)
    study.describe(evaluation={"protocols": ["linear", "tsne"]})
    for run in (each.run for one in rows for each in one.encoders if each.run):
        write_json(study.run(run) / "config.json", {"task": run})
        (study.run(run) / "metrics.jsonl").write_text("")
    write_report(study, by_dataset(rows), defaultdict(list))
    page = study.report.read_text()
    assert page.count('<figure class="map" data-across="3">') == 4 and page.count("data:image/jpeg") == 1
    assert "Map of test images" in page and "The report lacks" not in page
    for path in tmp_path.glob("evaluate/*/*.png"):
        path.unlink()
    write_report(study, by_dataset(rows), defaultdict(list))
    assert "The report lacks the maps of test images: FileNotFoundError" in study.report.read_text()


def test_encoders_without_a_map_have_none(tmp_path):
    rows = three()
    assert image_maps(Study(tmp_path), rows, Marks.of(rows)) is None
