"""Shows maps of test images by their features: a point for each image, which appears under the pointer."""

import base64
import io
from dataclasses import dataclass

from markupsafe import Markup
from PIL import Image

from jobs.evaluation.records import path_of
from jobs.report.chart_parts import Spec, chart, quantity
from jobs.report.chart_style import Mark, Marks
from jobs.report.comparison import EncoderRow, readable
from jobs.report.page import attempt, chart_block
from jobs.study.folder import Study
from ssl_core.storage.files import read_bytes
from ssl_core.storage.records import EvaluationRecord

PROTOCOL = "tsne"
MOST_MAPS = 4
MOST_CLASSES = 20  # that colors tell apart
SIDE, EDGES = 440, (-0.03, 1.03)  # pixels; of a map whose points lie between 0 and 1
QUALITY = 80  # of the JPEG: a quarter of the PNG's bytes


@dataclass(frozen=True)
class ImageMap:
    """Is the map of an encoder.

    Attributes:
        mark: The encoder's mark.
        chart: The points.
    """

    mark: Mark
    chart: Markup


@dataclass(frozen=True)
class ImageMaps:
    """Holds the maps of a few encoders, and the pictures of their images, which all of them share.

    Attributes:
        maps: Those of the best task, of its floor and so on.
        sheet: A URL that holds the pictures, in a square grid.
        across: How many are in a row.
        classes: Whether colors stand for classes.
    """

    maps: list[ImageMap]
    sheet: str
    across: int
    classes: bool


def image_maps(study: Study, rows: list[EncoderRow], marks: Marks) -> ImageMaps | Markup | None:
    """Returns the maps of one dataset, a line that they could not be made, or None if there are none.

    Args:
        study: The study whose report it is.
        rows: The encoders of one dataset, baselines first and the best task behind the other tasks.
        marks: Their marks.
    """
    found = [(row, record) for row in _chosen(rows) for record in row.records[PROTOCOL][:1]]
    return attempt(study, "the maps of test images", _image_maps, study, found, marks) if found else None


def _chosen(rows: list[EncoderRow]) -> list[EncoderRow]:
    """Returns a few encoders that have a map: the best of each kind first, tasks before floors, then other tasks."""
    having = [row for row in rows if any(record.points for record in row.records.get(PROTOCOL, ())[:1])]
    kinds = [[row for row in reversed(having) if row.kind == kind] for kind in ("task", "floor", "ceiling", "external")]
    best, others = [of[0] for of in kinds if of], [row for of in kinds for row in of[1:]]
    return [*best, *others][:MOST_MAPS]


def _image_maps(study: Study, found: list[tuple[EncoderRow, EvaluationRecord]], marks: Marks) -> ImageMaps:
    """Makes the maps. Where encoders were given other images than the first, by a file that failed, they have none."""
    first_row, first = found[0]
    tiles = [cell for *_, cell in first.points]
    labels = [label for _, _, label, _ in first.points]
    sheet = path_of(first_row.study, first).with_suffix(".png")
    maps = []
    for row, record in found:
        if [label for _, _, label, _ in record.points] == labels:
            block = chart_block(study, f"map of {row.name}", _map, record, marks[row], tiles)
            maps.append(ImageMap(marks[row], block or Markup()))
    return ImageMaps(maps, _as_jpeg(read_bytes(sheet)), _across(len(tiles)), max(labels) >= 0)


def _across(images: int) -> int:
    """Returns how many pictures are in a row of the square grid that holds so many."""
    return next(side for side in range(1, images + 1) if side * side >= images)


def _map(record: EvaluationRecord, mark: Mark, tiles: list[int]) -> Spec:
    """Shows a map as points in the colors of their classes; `tile` is the image's place on the page's sheet."""
    names = [readable(name) for name in record.dataset.class_names]
    values = [
        {"x": x, "y": y, "class": names[label] if 0 <= label < len(names) else "", "tile": tile}
        for (x, y, label, _), tile in zip(record.points, tiles)
    ]
    shown = [name for name in dict.fromkeys(names) if any(one["class"] == name for one in values)]
    encoding: Spec = {axis: {**quantity(axis, domain=EDGES, nice=False), "axis": None} for axis in ("x", "y")}
    layer: Spec = {"mark": {"type": "point", "filled": True, "size": 60}, "encoding": encoding}
    if 1 < len(shown) <= MOST_CLASSES:
        scheme = "tableau10" if len(shown) <= 10 else "tableau20"
        scale = {"domain": shown, "scheme": scheme}
        legend = {"symbolLimit": 0, "symbolType": "circle"}
        encoding["color"] = {"field": "class", "type": "nominal", "title": None, "scale": scale, "legend": legend}
        encoding["opacity"] = {"condition": {"param": "class_chosen", "value": 0.85}, "value": 0.08}
        select = {"type": "point", "fields": ["class"]}
        layer["params"] = [{"name": "class_chosen", "select": select, "bind": "legend"}]
    else:
        encoding["color"] = {"value": mark.color}
    return chart(f"Map of test images by {mark.label}", values, [layer], SIDE)


def _as_jpeg(png: bytes) -> str:
    """Returns a picture as a URL that holds it as JPEG."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").save(buffer, "jpeg", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
