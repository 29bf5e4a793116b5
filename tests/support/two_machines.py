"""`make two-machines`: a study on two machines, one of which loses its power in mid-study, and the report arrives.

The machines are two network namespaces of this one, each with its own hostname, processes, shared memory and Ray; the
folder of the study is what they share. Needs root and iproute2.
"""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.harness.local_nodes import RAY, SOON
from benchmarks.harness.processes import below, kill, wait_for
from ssl_core.data.dataset import open_source
from support.command import ROOT
from support.driver import Driver
from support.fault_injector import RUN

NAMES = ("one", "two")
PORT = 6379
BOOT = """
hostname $NAME
mount --bind $HOSTS /etc/hosts
mount -t tmpfs tmpfs /dev/shm
mkdir -p /tmp/ray && mount -t tmpfs tmpfs /tmp/ray
exec "$@"
"""


def run(*command: object) -> None:
    subprocess.run([*map(str, command)], check=True, capture_output=True, text=True)


class Network:
    """A bridge, and for each machine a namespace with a cable to it. Use as a context manager."""

    def __init__(self) -> None:
        self.tag = f"ts{os.getpid()}"
        self.spaces = [f"{self.tag}-{name}" for name in NAMES]

    def address(self, number: int) -> str:
        return f"10.213.{os.getpid() % 250}.{number + 1}"

    def cable(self, number: int) -> str:
        """The end of it that is outside."""
        return f"{self.tag}v{number}"

    def __enter__(self) -> "Network":
        try:
            run("ip", "link", "add", self.tag, "type", "bridge")
            run("ip", "link", "set", self.tag, "up")
            for number, space in enumerate(self.spaces):
                run("ip", "netns", "add", space)
                run("ip", "link", "add", self.cable(number), "type", "veth", "peer", "name", "eth0", "netns", space)
                run("ip", "link", "set", self.cable(number), "master", self.tag, "up")
                run("ip", "-n", space, "addr", "add", f"{self.address(number)}/24", "dev", "eth0")
                run("ip", "-n", space, "link", "set", "lo", "up")
                run("ip", "-n", space, "link", "set", "eth0", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        for number, space in enumerate(self.spaces):
            subprocess.run(["ip", "link", "del", self.cable(number)], capture_output=True)
            subprocess.run(["ip", "netns", "del", space], capture_output=True)
        subprocess.run(["ip", "link", "del", self.tag], capture_output=True)


class Machine:
    """Boots with Ray as all that runs on it."""

    def __init__(self, network: Network, number: int, folder: Path, *arguments: str):
        self.network, self.number = network, number
        hosts = folder / f"hosts-{number}"
        hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{network.address(i)} {n}\n" for i, n in enumerate(NAMES)))
        self.log = folder / f"{NAMES[number]}.log"
        ray = [
            str(RAY),
            "start",
            "--block",
            "--num-cpus=1",
            "--disable-usage-stats",
            "--object-store-memory=500000000",
            f"--node-ip-address={network.address(number)}",
            *arguments,
        ]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    "ip",
                    "netns",
                    "exec",
                    network.spaces[number],
                    "unshare",
                    "--uts",
                    "--mount",
                    "--pid",
                    "--fork",
                    "--mount-proc",
                    "--kill-child",
                    "bash",
                    "-ec",
                    BOOT,
                    "boot",
                    *ray,
                ],
                env=os.environ | {"NAME": NAMES[number], "HOSTS": str(hosts)},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    def booted(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return "Ray runtime started" in self.log.read_text()

    def init(self) -> int:
        """The first of its processes, without which none lives."""
        return below(self.process.pid)[0][0]

    def work(self) -> list[str]:
        """The trainings that run on it."""
        names = (said.removeprefix("ray::") for _, said in below(self.process.pid))
        return [name for name in names if RUN.fullmatch(name)]

    def cut(self) -> None:
        """Its power: the cable goes first, so that nobody hears of its end."""
        run("ip", "link", "set", self.network.cable(self.number), "down")
        os.kill(self.init(), signal.SIGKILL)
        self.process.wait(30)

    def inside(self, *command: str) -> list[str]:
        """`command`, to be run on it."""
        return ["nsenter", "-t", str(self.init()), "-n", "-u", "-m", "-p", f"--wdns={ROOT}", "--", *command]


def main() -> int:
    if os.geteuid() or not all(map(shutil.which, ("ip", "unshare", "nsenter"))):
        print(
            "two machines need network namespaces: root, and the programs ip (iproute2), unshare and nsenter",
            file=sys.stderr,
        )
        return 2
    budget, storage = sys.argv[1] if len(sys.argv) > 1 else "500", ROOT / "runs"
    shutil.rmtree(storage / "two-machines", ignore_errors=True)
    open_source("cifar10", None)  # fetched here: the machines have no way out
    os.environ.update(
        SOON,
        OMP_NUM_THREADS="1",
        RAY_enable_worker_prestart="0",
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN=secrets.token_hex(32),
    )
    began = time.monotonic()

    def say(text: str, when: float | None = None) -> None:
        print(f"{(when or time.monotonic()) - began:4.0f} s  {text}", flush=True)

    with tempfile.TemporaryDirectory() as folder, Network() as network:
        address = f"{network.address(0)}:{PORT}"
        machines = [Machine(network, 0, Path(folder), "--head", f"--port={PORT}", "--include-dashboard=false")]
        try:
            wait_for(machines[0].booted, 90, "Ray on the first machine")
            machines.append(Machine(network, 1, Path(folder), f"--address={address}"))
            wait_for(machines[1].booted, 90, "Ray on the second machine")
            say(f"machines one ({network.address(0)}) and two ({network.address(1)}) are up")
            say("on one: tilespin study demo --workers 1")
            return follow(machines, address, budget, storage, say)
        finally:
            for machine in machines:
                if machine.process.poll() is None:
                    kill(machine.process.pid)
                    machine.process.wait()


def follow(machines: list[Machine], address: str, budget: str, storage: Path, say) -> int:
    study = [
        "study",
        "demo",
        "--budget",
        budget,
        "--workers",
        "1",
        "--name",
        "two-machines",
        "--storage",
        storage,
        "--checkpoint-every",
        "10",
        "--decode-threads",
        "1",
        "--wandb",
        "off",
    ]
    started, seen, cut = time.monotonic(), 0, False
    with Driver(*study, env={"RAY_ADDRESS": address}, through=machines[0].inside) as driver:
        while driver.running() or seen < len(driver.lines):
            time.sleep(0.2)
            for when, line in driver.lines[seen:]:
                seen += 1
                if line.startswith(("again", "trained", "failed", "report:")):
                    say(line, when)
            running = [run for run in (machines[1].work() if not cut else []) if saved(storage, run)]
            if running and time.monotonic() - started > 20:
                machines[1].cut()
                cut = True
                say(f"machine two loses its power, in the middle of {running[0]}")
        code = driver.wait(60)
    said = driver.said()
    print(said[max(0, said.find("top-1 on test images")) :])
    return code or int(not cut or not (storage / "two-machines" / "report.html").exists())


def saved(storage: Path, run: str) -> bool:
    return len(list((storage / "two-machines" / "pretrain" / run / "checkpoints").glob("*.json"))) > 1


if __name__ == "__main__":
    sys.exit(main())
