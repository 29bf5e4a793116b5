"""Follows a job that was submitted: finds the cluster's address, shows the log, and says how the job ended."""

import os
import signal
import sys
from urllib.parse import urlsplit

from cluster.ray_jobs import RayJobInfo, RayJobsClient
from jobs import streams
from ssl_core.errors import UserError
from ssl_core.storage.object_store import is_url


def dashboard_address(value: str | None) -> str:
    """Returns the URL of the cluster's dashboard.

    Args:
        value: What was given by --address; None for what RAY_API_SERVER_ADDRESS says.

    Raises:
        UserError: If there is none, or it is no address of a dashboard.
    """
    found = value or os.environ.get("RAY_API_SERVER_ADDRESS")
    if not found:
        raise UserError("which cluster? --address http://HEAD:8265, or RAY_API_SERVER_ADDRESS in the environment")
    found = found if is_url(found) else f"http://{found}"
    parts = urlsplit(found)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.password is not None:
        raise UserError(
            f"--address {parts.scheme}://{parts.hostname}: expected the address of the cluster's dashboard, "
            "such as http://HEAD:8265, without a password"
        )
    return found


def _print_log(text: str) -> None:
    """Prints a piece of the log. Raises BrokenPipeError if nobody reads it any more: then there is nothing left to
    do."""
    print(text, end="")
    if streams.reader_left():
        raise BrokenPipeError


def follow(jobs: RayJobsClient, id: str) -> RayJobInfo:
    """Shows a job's log until the job ends, prints how it ended, and returns the job.

    Ctrl-C, or a pipe that nobody reads any more, leaves the job alone and exits with 128 + the signal's number.
    """
    try:
        job = jobs.follow(id, _print_log)
    except (KeyboardInterrupt, BrokenPipeError) as stopped:
        print_line(f"\nno longer following {id}, which goes on\n{reattach_command(jobs, id)}")
        sys.exit(128 + (signal.SIGINT if isinstance(stopped, KeyboardInterrupt) else signal.SIGPIPE))
    took = f" after {job.ended - job.started:.0f} s" if job.started and job.ended else ""
    how = {"SUCCEEDED": "succeeded", "STOPPED": "was stopped"}.get(job.status, "failed")
    shown = f"{id} {how}{took}" + (f", exit code {job.code}" if job.code else "")
    if job.code == 127:
        shown += ": the cluster has no such interpreter, give its path by --python"
    elif how == "failed" and "exit code" not in job.message:  # it never came to run
        shown += f": {' '.join(job.message.split())[:500]}"
    print_line(shown)
    return job


def reattach_command(jobs: RayJobsClient, id: str) -> str:
    """Returns two lines that say how to follow a job again and how to stop it."""
    return (
        f"to follow it: tilespin jobs logs {id} --address {jobs.address}\n"
        f"to stop it:   tilespin jobs stop {id} --address {jobs.address}"
    )


def print_line(text: str) -> None:
    """Prints a line to stderr."""
    print(text, file=sys.stderr, flush=True)
