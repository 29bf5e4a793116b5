"""Runs `tilespin jobs`: lists what was submitted to a cluster, shows logs, and stops jobs."""

import sys
import time
from dataclasses import dataclass
from typing import Annotated, ClassVar

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from cluster.ray_jobs import RayJobInfo, RayJobsClient
from jobs.config.options import VerbOptions
from jobs.config.parsing import parse
from jobs.submission.follow import dashboard_address, follow

COLORS = {"SUCCEEDED": "green", "FAILED": "red", "RUNNING": "cyan"}


@dataclass(frozen=True)
class List:
    """Lists what was submitted, newest first."""


@dataclass(frozen=True)
class Logs:
    """Shows a job's log until the job ends, and exits with its exit code. Ctrl-C leaves the job running."""

    id: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ID")]
    """id of the job, which tilespin submit and tilespin jobs list print"""
    follow: bool = True
    """wait until the job ends; --no-follow: only show the log so far"""


@dataclass(frozen=True)
class Stop:
    """Stops a job. The same command submitted again continues where it stopped."""

    id: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ID")]
    """id of the job, which tilespin submit and tilespin jobs list print"""


@dataclass(frozen=True, kw_only=True)
class Options(VerbOptions):
    """List, follow and stop jobs of a Ray cluster: tilespin jobs list, tilespin jobs logs ID, tilespin jobs stop ID."""

    choice_key: ClassVar[str] = "action"

    what: (
        Annotated[List, tyro.conf.subcommand("list")]
        | Annotated[Logs, tyro.conf.subcommand("logs")]
        | Annotated[Stop, tyro.conf.subcommand("stop")]
    )
    address: str | None = None
    """address of the cluster's dashboard, such as http://HEAD:8265; default: RAY_API_SERVER_ADDRESS"""


def main(arguments: list[str]) -> None:
    """Runs `tilespin jobs` with these command-line arguments."""
    options = parse(Options, "jobs", arguments)
    jobs, what = RayJobsClient(dashboard_address(options.address)), options.what
    if isinstance(what, List):
        Console().print(table(jobs.all()))
    elif isinstance(what, Stop):
        running = jobs.stop(what.id)
        print(f"{what.id} is being stopped" if running else f"{what.id} had ended before")
    elif what.follow:
        sys.exit(follow(jobs, what.id).code or 0)
    else:
        print(jobs.log(what.id), end="")


def table(found: list[RayJobInfo]) -> Table:
    """Returns the jobs of a cluster as a table for the terminal."""
    whole = Column("id", no_wrap=True, min_width=max((len(job.id) for job in found), default=2))  # it is typed again
    view = Table(whole, "state", "verb", "began", "took", "study", box=None)
    for job in found:
        state = f"[{COLORS.get(job.status, 'yellow')}]{job.status.lower()}[/]" + (f" ({job.code})" if job.code else "")
        began = time.strftime("%d %b %H:%M", time.localtime(job.started)) if job.started else ""
        took = f"{(job.ended or time.time()) - job.started:,.0f} s" if job.started else ""
        verb, study = (job.metadata.get(key, "") for key in ("verb", "study"))
        view.add_row(escape(job.id), state, escape(verb), began, took, escape(study))
    return view
