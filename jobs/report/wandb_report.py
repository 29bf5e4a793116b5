"""Saves the comparison as a report in W&B, built of its own panels: a team sees the runs behind the numbers."""

from typing import Any

from jobs.report.caveats import caveats_of
from jobs.report.comparison import DatasetComparison
from jobs.report.conclusions import conclusions
from jobs.study.folder import Study


def save(study: Study, parts: list[DatasetComparison], entity: str, project: str) -> str:
    """Makes the report of a study in W&B, or replaces its content.

    Args:
        study: The study, which keeps the report's URL.
        parts: The comparison.
        entity: The user or team in W&B.
        project: The project in W&B.

    Returns:
        The report's URL.
    """
    import wandb_workspaces.reports.v2.interface as wr
    from wandb_workspaces.expr import And, Metric

    def grid(name: str, which: Any, panels: list) -> "wr.PanelGrid":
        of = And(Metric("group") == study.root.name, which)
        return wr.PanelGrid(runsets=[wr.Runset(entity=entity, project=project, name=name, filters=of)], panels=panels)

    findings = []
    for part in parts:
        findings += [wr.H2(part.dataset), wr.UnorderedList(items=[*conclusions(part), *caveats_of(part)])]
    heads = [f"eval/{part.dataset}/{name}/{part.main_measure(name)}" for part in parts for name in part.protocols]
    bars = [wr.BarPlot(title=head, metrics=[head], groupby="config.task", orientation="h") for head in heads]
    recipe = [wr.Config(name) for name in ("options.optim.lr", "options.batch", "steps")]
    columns = [wr.ParallelCoordinatesPlotColumn(one) for one in (*recipe, *map(wr.SummaryMetric, heads[:1]))]
    plot = wr.ParallelCoordinatesPlot(columns=columns)
    kind = Metric("jobType")
    lines = [wr.LinePlot(title=f"pretext {m}", x="train/images", y=[f"train/{m}"]) for m in ("loss", "accuracy")]
    tables = [wr.WeavePanelSummaryTable(table_name=name) for name in ("comparison", "pairs")]
    report = wr.Report(
        entity=entity,
        project=project,
        title=f"Tilespin: {study.root.name}",
        blocks=[
            wr.H1("Which pretext task learned the best representation?"),
            *findings,
            wr.H2("All numbers"),
            grid("comparison", kind == "compare", tables),
            wr.H2("Transfer"),
            grid("encoders", kind != "compare", bars),
            wr.H2("Recipe against transfer"),
            grid("trained", kind == "pretrain", [plot]),
            wr.H2("Pretraining"),
            grid("trained", kind == "pretrain", lines),
        ],
    )
    if earlier := study.read().wandb_report:
        report.id = wr.Report.from_url(earlier).id
    report.save()
    study.describe(wandb_report=report.url)
    return report.url
