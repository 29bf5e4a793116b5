"""Following a job that was submitted: its address, its log, and how it ended."""

import os
import signal
import sys
from urllib.parse import urlsplit

from cluster.ray_jobs import Jobs, Submitted
from jobs import streams
from ssl_core.errors import BadInput
from ssl_core.storage.object_store import is_url


def address(told: str | None) -> str:
    """Of the dashboard. Raises BadInput if there is none, or it is something else's."""
    found = told or os.environ.get("RAY_API_SERVER_ADDRESS")
    if not found:
        raise BadInput("which cluster? --address http://HEAD:8265, or RAY_API_SERVER_ADDRESS in the environment")
    found = found if is_url(found) else f"http://{found}"
    parts = urlsplit(found)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.password is not None:
        raise BadInput(
            f"--address {parts.scheme}://{parts.hostname}: expected the address of the cluster's dashboard, "
            "such as http://HEAD:8265, without a password"
        )
    return found


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
    return (
        f"to follow it: tilespin jobs logs {id} --address {jobs.address}\n"
        f"to stop it:   tilespin jobs stop {id} --address {jobs.address}"
    )


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
