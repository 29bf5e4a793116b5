"""Runs `tilespin submit VERB …`: the same verb on a Ray cluster, followed until it ends."""

import re
import shutil
import sys
import time
from dataclasses import dataclass, fields
from pathlib import Path

from cluster import code_upload
from cluster.head import ClusterError
from cluster.ray_jobs import RayJobsClient, UnknownJob
from jobs.config.options import VerbOptions
from jobs.config.parsing import parse
from jobs.study.folder import commit
from jobs.submission.command import PATH_OPTIONS, Command, prepare_command
from jobs.submission.follow import dashboard_address, follow, print_line, reattach_command
from jobs.submission.results import fetch_results
from ssl_core.errors import UserError
from ssl_core.storage.object_store import is_url

WIDTH = 100  # columns that the tables in a job's log have at least


@dataclass(frozen=True, kw_only=True)
class Options(VerbOptions):
    """Run a verb on a Ray cluster: tilespin submit [options] VERB …, with the verb's own arguments. The code of this
    checkout is sent to the cluster. The job's log is shown until the job ends, and its exit code is this command's.
    Ctrl-C leaves the job running."""

    address: str | None = None
    """address of the cluster's dashboard, such as http://HEAD:8265; default: RAY_API_SERVER_ADDRESS"""
    python: str | None = None
    """Python interpreter on the cluster; default: this one if the cluster is this machine, else python"""
    driver_cpus: float = 0.0
    """CPUs to reserve for the job's own process on any machine; 0: none, and it runs on the head's machine"""
    retries: int = 0
    """how often to submit a job again that failed, except for wrong input; it continues where it stopped"""
    wait: bool = True
    """follow the job until it ends; --no-wait: only submit it"""
    dry_run: bool = False
    """say what would be submitted, and submit nothing"""


def main(arguments: list[str]) -> None:
    """Runs `tilespin submit` with these command-line arguments."""
    before, words = split_arguments(arguments)
    options = parse(Options, "submit", before)
    if not words:
        raise UserError(f"nothing to submit: tilespin submit --address URL VERB …, with {', '.join(PATH_OPTIONS)}")
    if options.retries < 0 or (options.retries and not options.wait):
        raise UserError(f"--retries {options.retries}: expected 0 or more, and no --no-wait: only who waits can retry")
    if options.driver_cpus < 0:
        raise UserError(f"--driver-cpus is {options.driver_cpus:g}, expected 0 or more")
    prepare_command(words, here=True)  # what is wrong whatever the cluster comes before the cluster; --help needs none
    jobs = RayJobsClient(dashboard_address(options.address))
    nodes, here = jobs.count_nodes()
    command = prepare_command(words, here)
    python = options.python or (sys.executable if here else "python")
    id = f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', command.name)}-{time.strftime('%Y%m%d-%H%M%S')}"
    sent = f"{checked_upload_size() / 1e6:.1f} MB of code to {jobs.address} ({nodes} machine{'s' if nodes > 1 else ''})"
    if options.dry_run:
        env = " ".join(f"{name}={value}" for name, value in job_variables().items())
        kept = " ".join(code_upload.IGNORED + code_upload.SECRETS)
        print(f"would send {sent}\nof {code_upload.ROOT}: {' '.join(code_upload.PACKAGES)}, without {kept}")
        if plugins := code_upload.plugin_files():
            print(f"and {' '.join(plugins)}")
        print(f"id: {id}\nenvironment: {env}\ncommand: {command.line(python)}")
        return
    print_line(f"sending {sent}")
    sys.exit(run(jobs, command, python, id, options, here))


def split_arguments(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Splits a command line into the options of submit, and the verb with what follows it.

    The verb is the first word that is neither an option nor an option's value. Raises UserError if --address comes
    after it.
    """
    flags = {
        f"--{no}{field.name.replace('_', '-')}" for field in fields(Options) if field.type is bool for no in ("", "no-")
    } | {"-h", "--help"}
    i = 0
    while i < len(arguments) and arguments[i].startswith("-"):
        i += 1 if arguments[i] in flags or "=" in arguments[i] else 2
    for word in arguments[i:]:
        if word.split("=")[0] == "--address":
            raise UserError("--address belongs before the verb: tilespin submit --address URL VERB …")
    return arguments[:i], arguments[i:]


def checked_upload_size() -> int:
    """Returns how many bytes are sent. Raises UserError if Ray would not take so many."""
    sizes = {path: path.stat().st_size for path in code_upload.uploaded_files()}
    if (total := sum(sizes.values())) >= code_upload.MAX_BYTES:
        largest = max(sizes, key=lambda path: sizes[path])
        raise UserError(
            f"the code is {total / 1e6:,.1f} MB, more than the {code_upload.MAX_BYTES / 1e6:,.0f} MB that Ray takes: "
            f"move away what is not code; the largest is {largest}"
        )
    return total


def job_variables() -> dict[str, str]:
    """Returns environment variables for the job's processes. All who see the cluster's dashboard can read them."""
    columns = str(max(WIDTH, shutil.get_terminal_size().columns))
    variables = {"COLUMNS": columns, **code_upload.plugin_variables()}
    return {**variables, "TILESPIN_COMMIT": at} if (at := commit()) else variables


def run(jobs: RayJobsClient, command: Command, python: str, first: str, options: Options, here: bool) -> int:
    """Submits a job, follows it, and submits again what failed.

    Args:
        jobs: The cluster's jobs.
        command: What to run.
        python: The interpreter on the cluster.
        first: The id of the first attempt; later ones have a number behind it.
        options: How often to try again, and whether to follow.
        here: Whether the cluster is this machine alone.

    Returns:
        The exit code of the last attempt.

    Raises:
        ClusterError: If the cluster does not answer, or has lost the last attempt.
    """
    about = {"verb": command.verb, "study": command.study or ""}
    id, left = first, options.retries
    while True:
        jobs.submit(id, command.line(python), cpus=options.driver_cpus, env=job_variables(), metadata=about)
        print_line(f"submitted {id}")
        if not options.wait:
            print_line(reattach_command(jobs, id))
            return 0
        try:
            ended = follow(jobs, id)
        except UnknownJob:  # the head was lost, and all that it knew
            if not left:
                raise
            print_line(f"the cluster has lost {id}")
        else:
            if ended.code in (0, 2) or ended.status == "STOPPED" or not left:
                break
        id, left = f"{first}-{options.retries - left + 1}", left - 1
        print_line(f"trying again as {id}, which continues where this stopped; {left} more after it")
    if ended.code == 0 and command.study and command.compares:
        fetch_report(jobs, command.study, python, f"{id}-results", is_url(command.study) or not here)
    return ended.code or 0


def fetch_report(jobs: RayJobsClient, study: str, python: str, id: str, away: bool) -> None:
    """Prints where results.csv and report.html are. A failure is only printed: the study itself is done.

    Args:
        jobs: The cluster's jobs.
        study: The study's folder or URL, as the cluster knows it.
        python: The interpreter on the cluster.
        id: The id of the job that reads the results there.
        away: Whether they have to be copied to this machine first.
    """
    folder = Path(study.rstrip("/").rsplit("/", 1)[-1])
    try:
        found = fetch_results(jobs, id, study, python, folder) if away else [Path(study) / "report.html"]
    except (ClusterError, ValueError, OSError) as error:
        print_line(f"the results could not be fetched from {study}: {error}")
    else:
        print_line(f"results: {' '.join(str(path.absolute()) for path in found)}")
