"""A Ray cluster of several machines, which are groups of processes on this one, to be hurt one by one."""

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import processes
from cluster.session import quietly

RAY = (sys.executable, "-m", "ray.scripts.scripts")
STORE_BYTES = 100_000_000
START_SECONDS = 90


class Machine:
    """`ray start --block` and what it started."""

    def __init__(self, folder: Path, *arguments: str):
        folder.mkdir()
        self.log = folder / "start.log"
        command = [*RAY, "start", "--block", "--node-ip-address=127.0.0.1", f"--object-store-memory={STORE_BYTES}",
                   f"--temp-dir={folder}", "--disable-usage-stats", "--include-log-monitor=false", "--no-monitor",
                   *arguments]  # fmt: skip
        quiet = {"RAY_enable_worker_prestart": "0", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | quiet
        with open(self.log, "w") as out:
            self.process = subprocess.Popen(
                command, env=environment, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
            )
        until = time.monotonic() + START_SECONDS
        while "Ray runtime started" not in self.log.read_text():
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"ray start failed: {self.log.read_text()[-2000:]}")
            time.sleep(0.2)

    def trains(self) -> list[int]:
        """The processes in which a training's workers run."""
        return processes.named(self.process.pid, "RayTrainWorker")

    def controls(self) -> bool:
        """Whether Ray Train's controller of a training runs here."""
        return bool(processes.named(self.process.pid, "TrainController.run"))

    def node(self) -> str:
        """Ray's id of it."""
        (raylet, *_) = processes.named(self.process.pid, "/raylet/raylet")
        words = Path(f"/proc/{raylet}/cmdline").read_bytes().decode().split("\0")
        return next(word.partition("=")[2] for word in words if word.startswith("--node_id="))

    def cut(self) -> None:
        """As if its power failed."""
        processes.kill(self.process.pid)
        self.process.wait()


class Machines:
    """A head, on which only drivers run, and machines of one CPU for work. A context manager, that ends them all."""

    def __init__(self, count: int):
        quietly()
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # which drivers inherit
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        self.count, self.number, self.all = count, 0, []
        self.folder = tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True)
        self.address = f"127.0.0.1:{free_port()}"

    def __enter__(self) -> "Machines":
        try:
            port = f"--port={self.address.partition(':')[2]}"
            client = f"--ray-client-server-port={free_port()}"
            # without the dashboard Ray Train does not free the room of a group whose controller is lost
            shown = ("--include-dashboard=true", f"--dashboard-port={free_port()}")
            self._start("--head", port, "--num-cpus=0", *shown, client)
            for _ in range(self.count):
                self.add()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        for machine in reversed(self.all):
            machine.cut()
        self.folder.cleanup()

    def add(self) -> Machine:
        return self._start(f"--address={self.address}", "--num-cpus=1")

    def replace(self, gone: Machine) -> None:
        """Another machine for one that is lost, or soon will be."""
        gone.cut()
        self.all.remove(gone)
        self.add()

    def training(self) -> list[Machine]:
        """Those on which a training's workers run."""
        return [machine for machine in self.all if machine.trains()]

    def drain(self, machine: Machine, seconds: int) -> None:
        """Tells Ray that the machine will go in so many seconds, as clouds say of spot instances."""
        from ray._raylet import GcsClient
        from ray.core.generated.autoscaler_pb2 import DrainNodeReason

        until = (time.time_ns() // 10**6) + 1000 * seconds
        why = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        accepted, said = GcsClient(address=self.address).drain_node(machine.node(), why, "wanted back", until)
        if not accepted:
            raise RuntimeError(f"Ray does not drain a machine: {said}")

    def _start(self, *arguments: str) -> Machine:
        self.number += 1
        self.all.append(Machine(Path(self.folder.name) / str(self.number), *arguments))
        return self.all[-1]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
