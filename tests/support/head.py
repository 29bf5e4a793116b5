"""A real Ray cluster of one machine with a dashboard, as `ray start --head` leaves it: its own ports, folder, token."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.command import ROOT, environment, run_forked

# What nobody but the cluster's own processes should ever see
KEYS = {"WANDB_API_KEY": "planted-node-key-0123456789", "AWS_SECRET_ACCESS_KEY": "planted-node-secret-0123456789"}


@dataclass(frozen=True)
class Head:
    address: str  # of its dashboard
    env: dict[str, str]  # of a user who has its token
    folder: Path  # its session's logs and all else it leaves
    token: str

    def run(self, *arguments, code: int = 0, cwd: Path = ROOT, timeout: int = 600, env: dict | None = None) -> str:
        """`tilespin` with arguments, as such a user -> what it said on stdout and stderr."""
        done = run_forked(*arguments, cwd=cwd, env=self.env | (env or {}), timeout=timeout)
        said = done.stdout + done.stderr
        assert done.returncode == code, f"exit {done.returncode}\n{said}"
        return said


def command(*arguments) -> list[str]:
    return [sys.executable, "-m", "jobs.cli", *map(str, arguments)]


@contextmanager
def head() -> Iterator[Head]:
    """The cluster, for as long as the block runs; KEYS are in the environment of its machine."""
    folder = Path(tempfile.mkdtemp(prefix="ts", dir="/tmp"))  # short: a socket's path may have 107 characters
    token = secrets.token_hex(32)
    (folder / "token").write_text(token)
    (folder / "token").chmod(0o600)
    common = environment() | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": str(ROOT),
    }
    common.pop("RAY_AUTH_TOKEN", None)  # of this process's own sessions; it would count for more than the file
    dashboard, agent, client = free_ports(3)
    start = [
        Path(sys.executable).with_name("ray"),
        "start",
        "--head",
        "--block",
        f"--temp-dir={folder / 'r'}",
        "--port=0",
        "--node-ip-address=127.0.0.1",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={dashboard}",
        f"--dashboard-agent-listen-port={agent}",
        f"--ray-client-server-port={client}",
        "--metrics-export-port=0",
        "--num-cpus=2",
        "--include-log-monitor=False",  # a driver's job log has what it prints; nobody asks for its workers' lines
        "--object-store-memory=100000000",
    ]
    own = {"RAY_enable_worker_prestart": "0", **KEYS}
    without = {k: v for k, v in common.items() if k != "PYTHONPATH"}  # what is sent must suffice there
    with open(folder / "head.log", "wb") as log:
        process = subprocess.Popen(start, env=without | own, stdout=log, stderr=log, cwd=folder)
    try:
        address = f"http://127.0.0.1:{dashboard}"
        _wait_for(address, process, folder / "head.log")
        yield Head(address, common, folder, token)
    finally:
        process.terminate()
        process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def free_ports(n: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _wait_for(address: str, process: subprocess.Popen, log: Path) -> None:
    """Until something answers there, if only that it wants a token."""
    until = time.monotonic() + 300
    while time.monotonic() < until and process.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/api/version", timeout=5)
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"no cluster after five minutes: {log.read_text()[-2000:]}")


def left_by(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Every regular file below `folder` and its bytes."""
    for at, _, names in os.walk(folder):
        for path in (Path(at, name) for name in names):
            if path.is_file() and not path.is_symlink():
                yield path, path.read_bytes()
