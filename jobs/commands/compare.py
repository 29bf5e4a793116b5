"""`tilespin compare STUDY ...`: which task learned the best representation, in the terminal, a report and W&B."""

from dataclasses import dataclass, replace
from typing import Annotated

import tyro

from jobs.config.parsing import parse
from jobs.report.collect import gather
from jobs.report.publish import _show, show
from jobs.study.folder import Study
from jobs.tracking.connection import Mode, decide
from ssl_core.errors import BadInput
from ssl_core.storage.files import exists


@dataclass(frozen=True, kw_only=True)
class Options:
    """Compare the encoders of a study, or of several: table, results.csv, report.html, and a summary run in W&B."""

    studies: Annotated[tuple[str, ...], tyro.conf.Positional]
    """folders of studies, such as runs/demo"""
    name: str = "comparison"
    """of the folder beside the first study that gets the report, if there are several"""
    tracking: Mode = "auto"
    """Weights & Biases; auto: online if you are logged in, else offline"""

    def check(self) -> None:
        """Raises BadInput for no study, or the same one twice."""
        if not self.studies or len(set(self.studies)) < len(self.studies):
            raise BadInput("compare: expected folders of studies, each once, such as runs/demo")


def main(arguments: list[str]) -> None:
    options = parse(Options, "compare", arguments)
    options.check()
    studies, tracking = [Study.existing(folder) for folder in options.studies], decide(options.tracking)
    if len(studies) == 1:
        with studies[0].held():
            show(studies[0], tracking)
        return
    together = Study.at(str(studies[0].root.parent), options.name)
    if together.root in [study.root for study in studies] or exists(together.root / "pretrain"):
        raise BadInput(f"--name {options.name}: {together.root} is a study, the comparison needs a folder of its own")
    rows = [replace(row, name=f"{study.root.name}/{row.name}") for study in studies for row in gather(study)]
    with together.held():
        together.describe(compared=[str(study.root) for study in studies])
        _show(together, rows, tracking)
