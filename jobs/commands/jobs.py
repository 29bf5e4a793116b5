"""`tilespin jobs`: what was submitted to a cluster, its logs, and an end to it."""

import os
import signal
import sys
import time
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from cluster.ray_jobs import Jobs, Submitted
from jobs import streams
from jobs.config.parsing import parse
from ssl_core.errors import BadInput
from ssl_core.storage.object_store import is_url

COLOURS = {"SUCCEEDED": "green", "FAILED": "red", "RUNNING": "cyan"}


@dataclass(frozen=True)
class List:
    """What was submitted, newest first."""


@dataclass(frozen=True)
class Logs:
    """The job's log until it ends; its exit code is this command's. Ctrl-C leaves the job running."""

    id: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ID")]
    """as submit said, or jobs list"""
    follow: bool = True
    """wait for more until the job ends; --no-follow only shows what there is"""


@dataclass(frozen=True)
class Stop:
    """Ends the job; the same command submitted again continues where it stopped."""

    id: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ID")]
    """as submit said, or jobs list"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The jobs of a Ray cluster: tilespin jobs list, tilespin jobs logs ID, tilespin jobs stop ID."""

    what: (
        Annotated[List, tyro.conf.subcommand("list")]
        | Annotated[Logs, tyro.conf.subcommand("logs")]
        | Annotated[Stop, tyro.conf.subcommand("stop")]
    )
    address: str | None = None
    """of the cluster's dashboard, such as http://HEAD:8265; default: what RAY_API_SERVER_ADDRESS says"""


def main(arguments: list[str]) -> None:
    options = parse(Options, "jobs", arguments)
    jobs, what = Jobs(address(options.address)), options.what
    if isinstance(what, List):
        Console().print(table(jobs.all()))
    elif isinstance(what, Stop):
        running = jobs.stop(what.id)
        print(f"{what.id} is being stopped" if running else f"{what.id} had ended before")
    elif what.follow:
        sys.exit(follow(jobs, what.id).code or 0)
    else:
        print(jobs.log(what.id), end="")


def address(told: str | None) -> str:
    """Of the dashboard. Raises BadInput if there is none, or it is something else's."""
    found = told or os.environ.get("RAY_API_SERVER_ADDRESS")
    if not found:
        raise BadInput("which cluster? --address http://HEAD:8265, or RAY_API_SERVER_ADDRESS in the environment")
    found = found if is_url(found) else f"http://{found}"
    parts = urlsplit(found)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.password is not None:
        raise BadInput(f"--address {parts.scheme}://{parts.hostname}: expected the address of the cluster's dashboard, "
                       "such as http://HEAD:8265, without a password")  # fmt: skip
    return found


def table(found: list[Submitted]) -> Table:
    whole = Column("id", no_wrap=True, min_width=max((len(job.id) for job in found), default=2))  # it is typed again
    view = Table(whole, "state", "verb", "began", "took", "study", box=None)
    for job in found:
        state = f"[{COLOURS.get(job.status, 'yellow')}]{job.status.lower()}[/]" + (f" ({job.code})" if job.code else "")
        began = time.strftime("%d %b %H:%M", time.localtime(job.started)) if job.started else ""
        took = f"{(job.ended or time.time()) - job.started:,.0f} s" if job.started else ""
        verb, study = (job.metadata.get(key, "") for key in ("verb", "study"))
        view.add_row(escape(job.id), state, escape(verb), began, took, escape(study))
    return view


def _show(text: str) -> None:
    """Raises BrokenPipeError if nobody reads it any more: then there is nothing left to do."""
    print(text, end="")
    if streams.unread():
        raise BrokenPipeError


def follow(jobs: Jobs, id: str) -> Submitted:
    """Shows the job's log until it ends, and says how. Ctrl-C, or a pipe that nobody reads any more, leaves the job
    alone, and exits with 128 + the signal's number."""
    try:
        job = jobs.follow(id, _show)
    except (KeyboardInterrupt, BrokenPipeError) as stopped:
        say(f"\nno longer following {id}, which goes on\n{reattach(jobs, id)}")
        sys.exit(128 + (signal.SIGINT if isinstance(stopped, KeyboardInterrupt) else signal.SIGPIPE))
    took = f" after {job.ended - job.started:.0f} s" if job.started and job.ended else ""
    how = {"SUCCEEDED": "succeeded", "STOPPED": "was stopped"}.get(job.status, "failed")
    said = f"{id} {how}{took}" + (f", exit code {job.code}" if job.code else "")
    if job.code == 127:
        said += ": the cluster has no such interpreter, give its path by --python"
    elif how == "failed" and "exit code" not in job.message:  # it never came to run
        said += f": {' '.join(job.message.split())[:500]}"
    say(said)
    return job


def reattach(jobs: Jobs, id: str) -> str:
    return (f"to follow it: tilespin jobs logs {id} --address {jobs.address}\n"
            f"to stop it:   tilespin jobs stop {id} --address {jobs.address}")  # fmt: skip


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
