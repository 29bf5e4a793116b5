"""Writes report.html: everything a reader needs to trust the comparison, in one file that works offline."""

import base64
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from matplotlib.figure import Figure

import jobs.report.figures as plots
from jobs.config.evaluation import Evaluation
from jobs.evaluation.records import path_of
from jobs.report.caveats import caveats_of, share_of_classes
from jobs.report.comparison import DatasetComparison, EncoderRow
from jobs.report.conclusions import conclusions, format_difference, format_number, split_by_kind
from jobs.report.figure_style import figure_to_svg
from jobs.report.over_datasets import OverDatasets
from jobs.study.folder import Study
from jobs.study.metrics import training_rows
from jobs.study.warning_log import warn
from ssl_core.evaluation.protocol import protocols
from ssl_core.storage.files import exists, read_bytes, read_json, write_text


def write_report(study: Study, parts: list[DatasetComparison], summary: OverDatasets | None = None) -> None:
    """Writes report.html of a study.

    Args:
        study: The study.
        parts: The comparison on each dataset.
        summary: That over datasets, if there are several.
    """
    environment = Environment(
        loader=PackageLoader("jobs.report", "."),
        autoescape=select_autoescape(["html", "jinja"]),
        undefined=StrictUndefined,  # a name that is misspelled is an error and no gap
    )
    rows = [row for part in parts for row in part.rows]
    runs, studies = [row for row in rows if row.trainings], {row.study.root: row.study for row in rows}
    curves = {row.name: training_rows(_first_run_folder(row) / "metrics.jsonl") for row in runs}
    metrics = [m for m in ("loss", "accuracy") if any(c and m in c[0] for c in curves.values())]
    page = environment.get_template("report.html.jinja").render(
        study=study.read(),
        name=study.root.name,
        summary=summary,
        parts=[_dataset_context(study, part) for part in parts],
        runs=runs,
        format_number=format_number,
        format_difference=format_difference,
        evaluations={one.root.name: Evaluation.of_study(one) for one in studies.values()},
        training={
            m: _figure(study, f"pretext {m}", plots.training, curves, m, [r.name for r in rows]) for m in metrics
        },
        samples={
            row.name: _embed_image(_first_run_folder(row) / "samples.png")
            for row in runs
            if exists(_first_run_folder(row) / "samples.png")
        },
        configs={row.name: json.dumps(read_json(_first_run_folder(row) / "config.json"), indent=1) for row in runs},
    )
    write_text(study.report, page)


def _dataset_context(study: Study, part: DatasetComparison) -> dict:
    """Returns what the page shows of one dataset."""
    rows, names, known = part.rows, part.protocols, protocols()
    accuracies, others = split_by_kind(names)
    ranked = [p for p in accuracies or names[:1] if any(row.headline(p) for row in rows)]
    draw = {
        "pretext": partial(plots.pretext, rows, names[0]),
        "invariance": partial(plots.invariance, rows),
        "semantic_similarity": partial(plots.semantic_similarity, rows),
        "lowshot": partial(plots.lowshot, rows),
        "cost": partial(plots.cost, rows, names[0]),
    }
    figures = {name: figure for name, make in draw.items() if (figure := _figure(study, name, make))}
    return {
        "dataset": part.dataset,
        "rows": rows,
        "accuracies": accuracies,
        "others": others,
        "conclusions": conclusions(part),
        "caveats": caveats_of(part),
        "over": share_of_classes(part),
        "heads": {p: f"{known[p].headline} {'↑' if known[p].higher_is_better else '↓'}" for p in others},
        "ranking": {p: _figure(study, f"ranking by {p}", plots.ranking, rows, p) for p in ranked},
        "stages": {
            p: _figure(study, f"stages by {p}", plots.stages, rows, p) for p in names if plots.has_stages(rows, p)
        },
        "pairs": {p: part.pairs[p] for p in accuracies if p in part.pairs},
        "figures": figures,
        "sheets": {row.name: _embed_image(sheet) for row in rows if (sheet := _contact_sheet_path(row))},
        "seeds": part.seeds,
    }


def _figure(study: Study, name: str, draw: Callable[..., Figure | None], *args) -> Markup | None:
    """Draws `draw(*args)` for the page, or returns None if there is nothing to draw.

    If that fails, a line in the page says so: by then all the work is done, and no figure may cost its report.
    """
    try:
        figure = draw(*args)
        return figure and Markup(figure_to_svg(figure))
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        warn(study.root, f"the report lacks the figure {name}: {why}")
        return Markup('<p class="caveat">The figure {} could not be drawn: {}</p>').format(f"“{name}”", why)


def _first_run_folder(row: EncoderRow) -> Path:
    """Returns the folder of the run of a row's first seed."""
    return row.study.run(row.one.run or "")


def _contact_sheet_path(row: EncoderRow) -> Path | None:
    """Returns the picture of the nearest neighbors of the first seed, or None."""
    for record in row.records.get("retrieval", ())[:1]:
        if exists(path := path_of(row.study, record).with_suffix(".png")):
            return path
    return None


def _embed_image(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(read_bytes(path)).decode()
