"""Writes report.html: everything a reader needs to trust the comparison, in one file that works offline."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from jobs.config.evaluation import Evaluation
from jobs.evaluation.records import path_of
from jobs.report import charts, course, course_charts, predictor_chart
from jobs.report import representation_charts as representation
from jobs.report.caveats import caveats_of, share_of_classes
from jobs.report.chart_style import Marks, protocol_title, transfer_title
from jobs.report.classes import ClassAccuracies, class_accuracies, confusion
from jobs.report.comparison import DatasetComparison, EncoderRow, readable
from jobs.report.conclusions import conclusions, format_difference, format_number, split_by_kind
from jobs.report.image_map import image_maps
from jobs.report.over_datasets import OverDatasets, conclusion_over_datasets
from jobs.report.page import (
    ContactSheet,
    Contents,
    Script,
    attempt,
    chart_block,
    chart_library,
    embed_image,
    package_file,
)
from jobs.report.predictors import Predictor, predictor_conclusions
from jobs.report.tuning import tuning_rows
from jobs.study.folder import Study
from jobs.study.metrics import training_rows
from ssl_core.evaluation.protocol import protocols
from ssl_core.storage.files import exists, read_json, write_text


def write_report(
    study: Study,
    parts: list[DatasetComparison],
    predicted: Mapping[str, list[Predictor]],
    summary: OverDatasets | None = None,
) -> None:
    """Writes report.html of a study.

    Args:
        study: The study.
        parts: The comparison on each dataset.
        predicted: By dataset, which label-free numbers predicted transfer.
        summary: That over datasets, if there are several.
    """
    environment = Environment(
        loader=PackageLoader("jobs.report", "."),
        autoescape=select_autoescape(["html", "jinja"]),
        undefined=StrictUndefined,  # a name that is misspelled is an error and no gap
        trim_blocks=True,
        lstrip_blocks=True,
    )
    rows = [row for part in parts for row in part.rows]
    marks, studies = Marks.of(rows), {row.study.root: row.study for row in rows}
    runs = list({(row.study.root, row.one.run): row for row in rows if row.trainings}.values())
    library = attempt(study, "its charts", chart_library)
    scripts = [one for one in (library, Script(package_file("page.js"))) if isinstance(one, Script)]
    page = environment.get_template("report.html.jinja").render(
        study=study.read(),
        name=study.root.name,
        heading=Contents(),
        style=package_file("page.css"),
        scripts=scripts,
        without_charts=library if isinstance(library, Markup) else None,
        summary=summary and _summary_context(study, summary, rows, marks),
        parts=[_dataset_context(study, part, predicted[part.dataset], marks) for part in parts],
        runs=runs,
        marks=marks,
        protocol_title=protocol_title,
        transfer_title=transfer_title,
        format_number=format_number,
        format_difference=format_difference,
        evaluations={one.root.name: Evaluation.of_study(one) for one in studies.values()},
        training=_training_charts(study, runs, marks),
        tuning=[found for one in studies.values() if exists(one.file) and (found := tuning_rows(one.read()))],
        samples=[
            (marks[row], embed_image(_first_run_folder(row) / "samples.png"))
            for row in runs
            if exists(_first_run_folder(row) / "samples.png")
        ],
        configs=[
            (marks[row], row.one.run, json.dumps(read_json(_first_run_folder(row) / "config.json"), indent=1))
            for row in runs
        ],
    )
    write_text(study.report, readable(page))


def _summary_context(study: Study, summary: OverDatasets, rows: list[EncoderRow], marks: Marks) -> dict:
    """Returns what the page shows of all datasets together."""
    by_name = {row.name: marks[row] for row in reversed(rows)}
    shown = [by_name[name] for name in summary.names]
    return {
        "of": summary,
        "rows": list(zip(shown, summary.names, summary.ranks, summary.gains)),
        "conclusion": conclusion_over_datasets(summary),
        "chart": chart_block(study, "gains over datasets", charts.gains_over_datasets, summary, shown),
    }


def _dataset_context(study: Study, part: DatasetComparison, predicted: list[Predictor], marks: Marks) -> dict:
    """Returns what the page shows of one dataset."""
    rows, names, known = part.rows, part.protocols, protocols()
    accuracies, others = split_by_kind(names)
    draw = {
        "pretext": partial(charts.pretext, rows, names[0], marks),
        **{
            make.__name__: partial(make, rows, marks)
            for make in (
                representation.invariance,
                representation.equivariance,
                representation.parameters,
                representation.movement,
                representation.semantic_similarity,
                representation.clusters,
            )
        },
        "lowshot": partial(charts.lowshot, rows, marks),
        "cost": partial(charts.cost, rows, names[0], marks),
    }
    by_class = class_accuracies(rows, names[0])
    best = by_class and _best(rows, by_class)
    ranked = dict.fromkeys(p for p in (names[0], *accuracies) if any(row.headline(p) for row in rows))
    return {
        "dataset": part.dataset,
        "rows": rows,
        "measure": part.accuracy_name,
        "accuracies": accuracies,
        "others": others,
        "conclusions": conclusions(part),
        "caveats": caveats_of(part),
        "over": share_of_classes(part),
        "heads": {p: f"{known[p].headline} {'↑' if known[p].higher_is_better else '↓'}" for p in others},
        "ranking": {p: chart_block(study, f"ranking by {p}", charts.ranking, rows, p, marks) for p in ranked},
        "stages": {
            p: chart_block(study, f"layers by {p}", charts.stages, rows, p, marks)
            for p in names
            if charts.has_stages(rows, p)
        },
        "classes": by_class,
        "confusion": best and chart_block(study, "confusion matrix", confusion, best, names[0]),
        "most_accurate": best and best.name,
        "pairs": {p: part.pairs[p] for p in accuracies if p in part.pairs},
        "charts": {name: found for name, make in draw.items() if (found := chart_block(study, name, make))},
        "sheets": [
            attempt(study, f"the nearest neighbors of {row.name}", ContactSheet.read, marks[row], sheet)
            for row in rows
            if (sheet := _contact_sheet_path(row))
        ],
        "maps": image_maps(study, rows, marks),
        "seeds": part.seeds,
        "courses": _course_charts(study, part, marks),
        "course_conclusions": course.course_conclusions(part),
        "predictors": {
            "lines": predictor_conclusions(predicted),
            "chart": chart_block(study, "what predicted transfer", predictor_chart.heat_map, predicted),
        },
    }


def _course_charts(study: Study, part: DatasetComparison, marks: Marks) -> dict[str, list[Markup | None]]:
    """Returns charts of transfer along trainings, and over trainings of several lengths, one for each protocol."""
    found = {}
    for title, of, draw in (
        ("Along training", course.along_training, course_charts.along),
        ("Over budgets", course.over_lengths, course_charts.over_lengths),
    ):
        courses = of(part.rows)
        names = course.shared_protocols(courses)
        found[title] = [chart_block(study, f"{title}, {p}", draw, courses, p, marks) for p in names]
    return {title: made for title, made in found.items() if made}


def _best(rows: list[EncoderRow], found: ClassAccuracies) -> EncoderRow:
    """Returns the best task, or if there is none with answers the encoder with the best."""
    tasks = [row for row in rows if row.kind == "task" and row in found.encoders]
    return (tasks or found.encoders)[-1]


def _training_charts(study: Study, runs: list[EncoderRow], marks: Marks) -> list[Markup | None]:
    """Returns a chart for each metric of the pretext tasks."""
    curves = [(marks[row], training_rows(_first_run_folder(row) / "metrics.jsonl")) for row in runs]
    metrics = [m for m in ("loss", "accuracy") if any(rows and m in rows[0] for _, rows in curves)]
    return [chart_block(study, f"pretext {m}", charts.training, curves, m) for m in metrics]


def _first_run_folder(row: EncoderRow) -> Path:
    """Returns the folder of the run of a row's first seed."""
    return row.study.run(row.one.run or "")


def _contact_sheet_path(row: EncoderRow) -> Path | None:
    """Returns the picture of the nearest neighbors of the first seed, or None."""
    for record in row.records.get("retrieval", ())[:1]:
        if exists(path := path_of(row.study, record).with_suffix(".png")):
            return path
    return None
