"""report.html: everything a reader needs to trust the comparison, in one file that works offline."""

import base64
import json
from pathlib import Path

from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup

import jobs.plots as plots
from jobs.cells import Evaluation
from jobs.layout import Study
from jobs.results import Row
from jobs.rows import of_training
from ssl_core.evaluators.features import protocols
from ssl_core.files import exists, read_bytes, read_json, write_text


def write_report(study: Study, rows: list[Row], evaluation: Evaluation) -> None:
    """Writes the report of `rows` beside results.csv."""
    environment = Environment(loader=PackageLoader("jobs", "."), autoescape=select_autoescape(["html", "jinja"]))
    runs = [row for row in rows if row.described]
    curves = {row.name: _journal(study, row) for row in runs}
    metrics = [m for m in ("loss", "accuracy") if any(c and m in c[0] for c in curves.values())]
    page = environment.get_template("report.html.jinja").render(
        study=read_json(study.file),
        name=study.root.name,
        rows=rows,
        runs=runs,
        evaluation=evaluation,
        protocols=evaluation.protocols,
        ranking={p: _figure(plots.ranking(rows, p)) for p in evaluation.protocols if any(r.headline(p) for r in rows)},
        stages={p: _figure(plots.stages(rows, p)) for p in evaluation.protocols if plots.has_stages(rows, p)},
        heads={p: "top-1" if (name := protocols()[p].headline) == "top1" else name for p in evaluation.protocols},
        training={m: _figure(plots.training(curves, m, [row.name for row in rows])) for m in metrics},
        samples={row.judged.run: _picture(study, row) for row in runs if exists(_samples(study, row))},
        configs={row.judged.run: json.dumps(_config(study, row), indent=1) for row in runs},
    )
    write_text(study.report, page)


def _figure(figure) -> Markup:
    return Markup(plots.svg(figure))


def _journal(study: Study, row: Row) -> list[dict]:
    return of_training(study.run(row.judged.run) / "metrics.jsonl")


def _samples(study: Study, row: Row) -> Path:
    return study.run(row.judged.run) / "samples.png"


def _picture(study: Study, row: Row) -> str:
    data = read_bytes(_samples(study, row))
    return "data:image/png;base64," + base64.b64encode(data).decode()


def _config(study: Study, row: Row) -> dict:
    return read_json(study.run(row.judged.run) / "config.json")
