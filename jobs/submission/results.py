"""The results of a study that lies where only a cluster can read: a small job there prints them, and this machine
reads its log. So they need no way home but the one that the job's own log takes.

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
    """Lines of text, which `unpack_files` finds again among others in a log."""
    encoded = json.dumps({name: base64.b64encode(data).decode() for name, data in files.items()})
    body = zlib.compress(encoded.encode())
    text = hashlib.sha256(body).hexdigest() + base64.b64encode(body).decode()
    return [MARK + text[i : i + WIDTH] for i in range(0, len(text), WIDTH)]


def unpack_files(log: str) -> dict[str, bytes]:
    """The files in a log. Raises ValueError if there are none, or not all of their bytes."""
    text = "".join(line.removeprefix(MARK) for line in log.splitlines() if line.startswith(MARK))
    body = base64.b64decode(text[64:])
    if hashlib.sha256(body).hexdigest() != text[:64]:
        raise ValueError("the log holds no results, or damaged ones")
    return {name: base64.b64decode(data) for name, data in json.loads(zlib.decompress(body)).items()}


def fetch_results(jobs: RayJobsClient, id: str, study: str, python: str, folder: Path) -> list[Path]:
    """results.csv and report.html of `study`, as far as it has them, written into the folder `folder` by means of a
    job called `id`. Raises ClusterError if the cluster is away, ValueError if the study cannot be read there."""
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
    found = Study.existing(study)
    print(
        *pack_files({path.name: path.read_bytes() for path in (found.results, found.report) if path.exists()}), sep="\n"
    )


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except UserError as error:
        sys.exit(str(error))
