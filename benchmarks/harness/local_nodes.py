"""A Ray cluster of several machines, which are groups of processes on this one, to be hurt one by one."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.harness.processes import below, kill, wait_for
from cluster.session import apply_settings, use_own_token

RAY = Path(sys.executable).with_name("ray")
STORE_BYTES = 100_000_000
FEW = {"OMP_NUM_THREADS": "1", "RAY_enable_worker_prestart": "0"}  # threads and processes
# How soon a silent machine counts as dead: Ray's defaults are five times 13 s
SOON = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "4000",
    "RAY_health_check_failure_threshold": "3",
}
# Ray calls a process what it works at: the name of a run, of its features or a judgment, or a worker of Ray Train
WORKS = re.compile(r"ray::(\w+-[0-9a-f]{12}|\w+/|.*RayTrainWorker)")


@dataclass
class Machine:
    """`ray start --block` and what it started."""

    process: subprocess.Popen
    log: Path
    known: set[int] = field(default_factory=set)  # what was ever seen below it: when a raylet dies, others are left

    def processes(self) -> list[tuple[int, str]]:
        found = below(self.process.pid)
        self.known.update(pid for pid, _ in found)
        return found

    def raylet(self) -> int:
        return next(pid for pid, said in self.processes() if "/raylet " in said)

    def node(self) -> str:
        """Ray's id of it."""
        said = next(said for _, said in self.processes() if "/raylet " in said)
        return next(word.partition("=")[2] for word in said.split() if word.startswith("--node_id="))

    def workers(self) -> list[tuple[int, str]]:
        """(pid, name) of processes in which jobs run."""
        return [(pid, said) for pid, said in self.processes() if WORKS.match(said)]

    def trains(self) -> list[int]:
        """The processes in which the workers of one training run."""
        return [pid for pid, said in self.processes() if "RayTrainWorker" in said]

    def controllers(self) -> list[int]:
        """The processes in which Ray Train's controllers of trainings run."""
        return [pid for pid, said in self.processes() if "TrainController.run" in said]

    def cut(self) -> None:
        """As if its power failed."""
        self.processes()
        kill(self.process.pid, *self.known)  # what lost its parent is known from before
        self.process.wait()

    def fall_silent(self) -> None:
        """As if its cable were cut: nothing of it answers, and no connection is closed."""
        for pid, _ in self.processes():
            os.kill(pid, signal.SIGSTOP)

    def kill_raylet(self) -> None:
        """What is left of the machine ends itself."""
        os.kill(self.raylet(), signal.SIGKILL)
        self.process.wait(60)


class Machines:
    """A head, on which only drivers run, and `count` machines for work. Use as a context manager; its end ends them
    all. `settings`: of Ray, by environment variables."""

    def __init__(self, count: int = 2, cpus: int = 1, settings: Mapping[str, str] = SOON):
        apply_settings()
        # the token that a session of this process may have begun to use, and drivers inherit
        use_own_token()
        self.cpus, self.count, self.settings = cpus, count, settings
        self.temporary = tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True)
        self.address = f"127.0.0.1:{free_port()}"
        self.number = 0
        self.head: Machine | None = None
        self.working: list[Machine] = []

    def __enter__(self) -> "Machines":
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        self.cut()
        self.temporary.cleanup()

    def start(self) -> None:
        """All of them, at the address that they had before."""
        self.head = self._start(
            "--head",
            f"--port={self.address.partition(':')[2]}",
            "--include-dashboard=false",
            f"--ray-client-server-port={free_port()}",
            cpus=0,
        )
        for _ in range(self.count):
            self.add(wait=False)
        for machine in self.working:
            _started(machine)

    def add(self, wait: bool = True) -> Machine:
        """Another machine for work."""
        machine = self._start(f"--address={self.address}", cpus=self.cpus, wait=wait)
        self.working.append(machine)
        return machine

    def replace(self, gone: Machine) -> Machine:
        """A machine in the place of one that is gone."""
        self.working.remove(gone)
        return self.add()

    def lose(self, machine: Machine) -> None:
        """For good, by a power cut."""
        machine.cut()
        self.working.remove(machine)

    def cut(self) -> None:
        """The power of all."""
        for machine in (*self.working, *([self.head] if self.head else [])):
            machine.cut()
        self.head, self.working = None, []

    def drain(self, machine: Machine, seconds: int) -> None:
        """Tells Ray that the machine goes in so many seconds, as clouds do of spot instances; it is not made to go."""
        command = [
            RAY,
            "drain-node",
            "--address",
            self.address,
            "--node-id",
            machine.node(),
            "--reason",
            "DRAIN_NODE_REASON_PREEMPTION",
            "--reason-message",
            "a spot machine is wanted back",
            "--deadline-remaining-seconds",
            str(seconds),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    def controllers(self) -> list[int]:
        """The processes in which Ray Train's controllers run, on whatever machine."""
        return [pid for one in (self.head, *self.working) if one for pid in one.controllers()]

    def environment(self) -> dict[str, str]:
        """Of drivers that join."""
        return {"RAY_ADDRESS": self.address}

    def _start(self, *arguments: str, cpus: int, wait: bool = True) -> Machine:
        self.number += 1
        folder = Path(self.temporary.name) / str(self.number)  # its own: two that start at once would share sockets
        folder.mkdir()
        log = folder / "start.log"
        command = [
            RAY,
            "start",
            "--block",
            "--node-ip-address=127.0.0.1",
            f"--num-cpus={cpus}",
            f"--object-store-memory={STORE_BYTES}",
            f"--temp-dir={folder}",
            "--disable-usage-stats",
            "--include-log-monitor=false",
            "--no-monitor",
            *arguments,
        ]
        environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
        with log.open("wb") as file:
            process = subprocess.Popen(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**environment, **FEW, **self.settings},
            )
        machine = Machine(process, log)
        if wait:
            _started(machine)
        return machine


def _started(machine: Machine) -> None:
    def there() -> bool:
        if machine.process.poll() is not None:
            raise RuntimeError(f"ray start ended: {machine.log.read_text()}")
        return "Ray runtime started" in machine.log.read_text() and bool(machine.processes())

    wait_for(there, 60, "a machine of the cluster")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
