"""Runs `tilespin compare STUDY ...`: which task learned the best representation, in the terminal, a report and W&B."""

from dataclasses import dataclass, replace
from typing import Annotated

import tyro

from jobs.config.options import VerbOptions
from jobs.config.parsing import parse
from jobs.report.collect import collect
from jobs.report.publish import publish, publish_rows
from jobs.study.folder import Study
from jobs.tracking.connection import Mode, decide_mode
from ssl_core.errors import UserError
from ssl_core.storage.files import exists


@dataclass(frozen=True, kw_only=True)
class Options(VerbOptions):
    """Compare the encoders of a study, or of several: table, results.csv, report.html, and a summary run in W&B."""

    studies: Annotated[tuple[str, ...], tyro.conf.Positional]
    """folders of studies, such as runs/demo"""
    name: str = "comparison"
    """name of the folder beside the first study that gets the report, if there are several studies"""
    wandb: Mode = "auto"
    """tracking in Weights & Biases; auto: online if you are logged in, else offline"""

    def check(self) -> None:
        """Raises UserError for no study, or the same one twice."""
        if not self.studies or len(set(self.studies)) < len(self.studies):
            raise UserError("compare: expected folders of studies, each once, such as runs/demo")


def main(arguments: list[str]) -> None:
    """Runs `tilespin compare` with these command-line arguments."""
    run(parse(Options, "compare", arguments))


def run(options: Options) -> Study:
    """Compares studies and returns the one that has the report. Raises UserError if there is nothing to compare."""
    options.check()
    studies, wandb = [Study.existing(folder) for folder in options.studies], decide_mode(options.wandb)
    if len(studies) == 1:
        with studies[0].lock():
            publish(studies[0], wandb)
        return studies[0]
    together = Study.open(str(studies[0].root.parent), options.name)
    if together.root in [study.root for study in studies] or exists(together.root / "pretrain"):
        raise UserError(f"--name {options.name}: {together.root} is a study, the comparison needs a folder of its own")
    rows = [replace(row, name=f"{study.root.name}/{row.name}") for study in studies for row in collect(study)]
    with together.lock():
        together.describe(compared=tuple(str(study.root) for study in studies))
        publish_rows(together, rows, wandb)
    return together
