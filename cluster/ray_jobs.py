"""Talks to Ray Jobs: hands a command to a cluster over HTTP, follows it from afar, lists and stops jobs."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.code_upload import working_dir_options
from cluster.head import ClusterError, token_message

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

CONNECT_TIMEOUT_S = 10
RECONNECT_TIMEOUT_S = 300  # for a dashboard that stopped answering while a job was followed
READY_TIMEOUT_S = 30  # for a cluster that was just started: its dashboard answers before its machines are there


@dataclass(frozen=True)
class RayJobInfo:
    """Describes a job of a cluster. `code` is its exit code, None while it runs; times are in seconds of the epoch."""

    id: str
    status: str  # PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED
    command: str
    message: str
    metadata: dict[str, str]
    code: int | None
    started: float | None
    ended: float | None


class RayJobsClient:
    """Gives access to the jobs of the cluster whose dashboard is at `address`, such as http://HEAD:8265.

    Every method raises ClusterError if the dashboard does not answer, refuses the token or does not know the job.
    """

    def __init__(self, address: str):
        import logging

        import requests
        from ray.job_submission import JobSubmissionClient

        for handler in logging.getLogger("ray").handlers:  # each step of an upload is announced otherwise
            handler.setLevel(logging.ERROR)
        self.address = address.rstrip("/")
        with self._requesting(), _without_variables("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
            # the client itself would wait longer
            requests.get(f"{self.address}/api/version", timeout=CONNECT_TIMEOUT_S)
            self.client = JobSubmissionClient(self.address)

    def count_nodes(self) -> tuple[int, bool]:
        """Returns how many machines the cluster has, and whether the only one is this one.

        An address cannot tell: 127.0.0.1 may be the end of a tunnel. A socket in the file system can.
        """
        began = time.monotonic()
        while True:
            with self._requesting():
                response = self.client._do_request("GET", "/nodes?view=summary")
                nodes = [node["raylet"] for node in response.json()["data"]["summary"]]
            alive = [raylet for raylet in nodes if raylet.get("state") == "ALIVE"]
            if alive or time.monotonic() - began > READY_TIMEOUT_S:
                break
            time.sleep(0.5)
        if not alive:
            raise ClusterError(f"the cluster at {self.address} has no machine that is alive")
        socket = alive[0].get("rayletSocketName")
        return len(alive), len(alive) == 1 and bool(socket) and Path(socket).exists()

    def submit(self, id: str, command: str, *, cpus: float, env: dict[str, str], metadata: dict[str, str]) -> None:
        """Sends the code of this checkout to the cluster and starts a command in it.

        Args:
            id: The job's id, which the cluster must not have yet.
            command: A command line for a shell.
            cpus: CPUs to reserve for the command; it runs where they are free, or on the head's machine if this is
                0.
            env: Environment variables. All who see the dashboard can read them: nothing secret.
            metadata: What to remember of the job. All who see the dashboard can read it.
        """
        with self._requesting():
            self.client.submit_job(
                entrypoint=command,
                submission_id=id,
                runtime_env={**working_dir_options(), "env_vars": env},
                metadata=metadata,
                entrypoint_num_cpus=cpus or None,
            )

    def follow(self, id: str, write: Callable[[str], Any]) -> RayJobInfo:
        """Passes a job's log on as it grows, from its beginning, until the job ends, and returns the job.

        A dashboard that does not answer is asked again for RECONNECT_TIMEOUT_S seconds; nothing is written twice.

        Args:
            id: The job's id.
            write: Is called with each new piece of the log.

        Raises:
            ClusterError: If the dashboard is away for too long, or does not know the job (UnknownJob).
        """
        import aiohttp

        written, last = 0, time.monotonic()

        async def tail() -> None:
            nonlocal written, last
            read = 0
            async for text in self.client.tail_job_logs(id):
                new = text[max(0, written - read) :]
                read += len(text)
                if new:
                    write(new)
                    written, last = read, time.monotonic()

        while True:
            try:
                self.job(id)  # or it would be waited for in vain
                last = time.monotonic()
                asyncio.run(tail())
                job, last = self.job(id), time.monotonic()
                if job.code is not None:
                    return job
            except (UnknownJob, BrokenPipeError):  # the pipe is the reader's, who had enough
                raise
            except (ClusterError, RuntimeError, OSError, aiohttp.ClientError) as error:
                if time.monotonic() - last > RECONNECT_TIMEOUT_S:
                    raise ClusterError(f"lost sight of job {id}: {' '.join(str(error).split())}") from error
            time.sleep(0.5)

    def job(self, id: str) -> RayJobInfo:
        """Returns the job called `id`."""
        with self._requesting(id):
            return _job_info(self.client.get_job_info(id))

    def log(self, id: str) -> str:
        """Returns the log of the job called `id`, as far as it is written."""
        with self._requesting(id):
            return self.client.get_job_logs(id)

    def stop(self, id: str) -> bool:
        """Stops the job called `id` and returns whether it was running."""
        with self._requesting(id):
            return self.client.stop_job(id)

    def all(self) -> list[RayJobInfo]:
        """Returns the jobs that were submitted to the cluster, newest first."""
        with self._requesting():
            found = [_job_info(info) for info in self.client.list_jobs() if info.submission_id]
        return sorted(found, key=lambda job: -(job.started or 0))

    @contextmanager
    def _requesting(self, id: str = "") -> Iterator[None]:
        """Turns what can go wrong with a request in the block into a ClusterError of one line."""
        import requests
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError as error:
            raise ClusterError(token_message(self.address)) from error
        except (ConnectionError, requests.exceptions.RequestException) as error:
            if isinstance(error, requests.exceptions.JSONDecodeError):
                raise ClusterError(f"what answers at {self.address} is no Ray dashboard") from error
            raise ClusterError(f"no Ray cluster answers at {self.address}") from error
        except (RuntimeError, ValueError) as error:
            if id and "status code 404" in str(error):
                raise UnknownJob(f"the cluster at {self.address} knows no job {id}") from error
            raise ClusterError(" ".join(str(error).split())[:1000]) from error


class UnknownJob(ClusterError):
    """Says that the cluster knows no such job: it never did, or its head was lost and with it what it knew."""


def _job_info(info: "JobDetails") -> RayJobInfo:
    ended = info.status.is_terminal()
    code = info.driver_exit_code
    if ended and code is None:
        code = 0 if info.status == "SUCCEEDED" else 1
    if code is not None and code < 0:
        code = 128 - code  # killed by a signal, in a shell's words
    return RayJobInfo(
        id=info.submission_id or info.job_id or "",
        status=str(info.status.value),
        command=info.entrypoint,
        message=info.message or "",
        metadata=info.metadata or {},
        code=code if ended else None,
        started=info.start_time / 1000 if info.start_time else None,
        ended=info.end_time / 1000 if info.end_time else None,
    )


@contextmanager
def _without_variables(*names: str) -> Iterator[None]:
    """Hides environment variables from the block: Ray's client would prefer their addresses to the one that it is
    given."""
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)
