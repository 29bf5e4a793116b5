"""Fetches the results of a study that lies where only a cluster can read.

A small job there prints them, and this machine reads its log, so they need no connection but the one that logs use.
On the cluster: `python -m jobs.submission.results STUDY`.
"""

import base64
import hashlib
import json
import shlex
import sys
import zlib
from pathlib import Path

from cluster.ray_jobs import RayJobsClient
from jobs.study.folder import Study
from ssl_core.errors import UserError
from ssl_core.storage.files import write_bytes

MARK = "tilespin-results:"  # begins each line that is ours
WIDTH = 4000  # characters of a line: who tails logs cuts longer ones


def pack_files(files: dict[str, bytes]) -> list[str]:
    """Encodes files as lines of text, which `unpack_files` finds again among others in a log."""
    encoded = json.dumps({name: base64.b64encode(data).decode() for name, data in files.items()})
    body = zlib.compress(encoded.encode())
    text = hashlib.sha256(body).hexdigest() + base64.b64encode(body).decode()
    return [MARK + text[i : i + WIDTH] for i in range(0, len(text), WIDTH)]


def unpack_files(log: str) -> dict[str, bytes]:
    """Decodes the files in a log. Raises ValueError if there are none, or not all of their bytes."""
    text = "".join(line.removeprefix(MARK) for line in log.splitlines() if line.startswith(MARK))
    body = base64.b64decode(text[64:])
    if hashlib.sha256(body).hexdigest() != text[:64]:
        raise ValueError("the log holds no results, or damaged ones")
    return {name: base64.b64decode(data) for name, data in json.loads(zlib.decompress(body)).items()}


def fetch_results(jobs: RayJobsClient, id: str, study: str, python: str, folder: Path) -> list[Path]:
    """Copies results.csv and report.html of a study, as far as it has them, by means of a job on the cluster.

    Args:
        jobs: The cluster's jobs.
        id: The id of the job.
        study: The study's folder or URL, as the cluster knows it.
        python: The interpreter on the cluster.
        folder: Where to write them.

    Returns:
        The files that were written.

    Raises:
        ClusterError: If the cluster does not answer.
        ValueError: If the study cannot be read there.
    """
    jobs.submit(
        id, shlex.join([python, "-m", "jobs.submission.results", study]), cpus=0, env={}, metadata={"verb": "fetch"}
    )
    ended = jobs.follow(id, lambda text: None)
    if ended.code:
        raise ValueError(f"job {id} ended with exit code {ended.code}")
    found = unpack_files(jobs.log(id))
    for name, data in found.items():
        write_bytes(folder / Path(name).name, data)
    return [folder / Path(name).name for name in found]


def main(study: str) -> None:
    """Prints the results of a study as lines that `unpack_files` decodes. Raises UserError if there is no such
    study."""
    found = Study.existing(study)
    print(
        *pack_files({path.name: path.read_bytes() for path in (found.results, found.report) if path.exists()}), sep="\n"
    )


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except UserError as error:
        sys.exit(str(error))
