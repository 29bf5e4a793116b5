"""`python -m benchmarks.neighbors`: what is left of a training's speed beside programs that keep cores busy.

Two trainings in one process each, with all cores, take turns: as they are, their threads sleeping while cores are
contended (ssl_core/openmp.py), and with threads that always spin while they wait, as they would without it. A third
process computes with as many threads, none of which ever waits for another: the share of the processors that it gets
is what the system leaves to a program beside these neighbors. Then evaluations, each as a process of its own, take
turns in the same way. For a machine that nobody else uses.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness import abba, processes
from benchmarks.harness import environment as machine
from benchmarks.harness.alternating import ROOT
from benchmarks.harness.counted_run import read_count

SPINNING = {"GOMP_SPINCOUNT": "300000"}  # GNU's default, said aloud, which turns ssl_core/openmp.py off
SIDES: dict[str, dict[str, str]] = {"sleeping": {}, "spinning": SPINNING}
NEIGHBOR = "while True: pass"
# as many threads as there are cores, without the interpreter's lock and without waiting for each other
INDEPENDENT = """
import hashlib, os, threading

def work():
    block = bytes(1 << 22)
    while True:
        hashlib.sha256(block)

for _ in os.sched_getaffinity(0):
    threading.Thread(target=work).start()
"""
WARM_S = 3.0  # of a turn, before it is measured: what is contended is noticed within one
UNSET = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def start(arguments: list[str], log: Path, **environment: str) -> subprocess.Popen:
    """A Python process in a session of its own, as a program of somebody else is."""
    given = {name: value for name, value in os.environ.items() if name not in UNSET}
    with open(log, "w") as out:
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**given, **environment},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


@contextmanager
def awake(*running: subprocess.Popen) -> Iterator[None]:
    """Lets processes run for the block, which are stopped before and after it."""
    for one in running:
        os.kill(one.pid, signal.SIGCONT)
    try:
        yield
    finally:
        for one in running:
            os.kill(one.pid, signal.SIGSTOP)


class Turns:
    """Processes that take turns beside so many neighbors."""

    def __init__(self, place: Path, options: argparse.Namespace):
        self.place, self.options = place, options
        self.cores = len(os.sched_getaffinity(0))
        self.neighbors = [start(["-c", NEIGHBOR], place / "neighbor.log") for _ in range(max(options.neighbors))]
        self.independent = start(["-c", INDEPENDENT], place / "independent.log")
        for one in (*self.neighbors, self.independent):
            os.kill(one.pid, signal.SIGSTOP)
        self.trainings = {name: self._train(name, environment) for name, environment in SIDES.items()}

    def _train(self, name: str, environment: dict[str, str]) -> subprocess.Popen:
        """A training after its first steps, stopped."""
        asked = self.options
        command = ["-m", "benchmarks.harness.counted_run", str(self.place / name), "pretrain", asked.task]
        command += ["--data", asked.data, "--encoder", asked.encoder, "--steps", "1000000", "--wandb", "off"]
        command += ["--checkpoint-every", "24h", "--storage", str(self.place / "runs"), "--name", name]
        running = start(command, self.place / f"{name}.log", **environment)
        while read_count(self.place / name) < 20:
            if running.poll() is not None:
                raise RuntimeError((self.place / f"{name}.log").read_text()[-2000:])
            time.sleep(0.2)
        os.kill(running.pid, signal.SIGSTOP)
        return running

    def steps(self, name: str, neighbors: int) -> float:
        """Steps a second of a training beside so many neighbors."""
        with awake(*self.neighbors[:neighbors], self.trainings[name]):
            time.sleep(WARM_S)
            begin, first = time.perf_counter(), read_count(self.place / name)
            time.sleep(self.options.seconds)
            return (read_count(self.place / name) - first) / (time.perf_counter() - begin)

    def left(self, neighbors: int) -> float:
        """The share of all cores that a process gets whose threads do not wait for each other."""
        with awake(*self.neighbors[:neighbors], self.independent):
            time.sleep(WARM_S)
            begin, first = time.perf_counter(), processes.seconds(self.independent.pid)
            time.sleep(self.options.seconds)
            used = processes.seconds(self.independent.pid) - first
            return used / (time.perf_counter() - begin) / self.cores

    def evaluation(self, name: str, neighbors: int) -> float:
        """Seconds of an evaluation as a process, its start included."""
        with tempfile.TemporaryDirectory(dir=self.place) as storage, awake(*self.neighbors[:neighbors]):
            command = ["-m", "jobs.cli", "evaluate", f"{storage}/e", "--data", self.options.data, "--wandb", "off"]
            command += ["--encoder", "timm:resnet10t=random", "--protocols", "linear"]
            begin = time.perf_counter()
            log = self.place / "evaluation.log"
            if start(command, log, **SIDES[name]).wait():
                raise RuntimeError(log.read_text()[-2000:])
            return time.perf_counter() - begin

    def end(self) -> None:
        for one in (*self.neighbors, self.independent, *self.trainings.values()):
            processes.kill(one.pid)
            one.wait()


def measure(turns: Turns, neighbors: int, rounds: int, evaluations: int) -> dict:
    """Rates and the share that is left, from turns in one order and then in the other."""
    rates: dict[str, list[float]] = {name: [] for name in SIDES}
    left = []
    for number in range(rounds):
        left.append(turns.left(neighbors))
        for name in list(SIDES)[:: -1 if number % 2 else 1]:
            rates[name].append(turns.steps(name, neighbors))
    seconds = [turns.evaluation("sleeping" if side == "A" else "spinning", neighbors) for side in "ABBA" * evaluations]
    pairs = [sleeping / spinning for sleeping, spinning in zip(rates["sleeping"], rates["spinning"])]
    return {
        "neighbors": neighbors,
        "left": statistics.median(left),
        **{name: statistics.median(values) for name, values in rates.items()},
        "sleeping_over_spinning": abba.interval(pairs),
        "evaluation": {
            name: statistics.median(second for second, side in zip(seconds, "ABBA" * evaluations) if side == letter)
            for name, letter in (("sleeping", "A"), ("spinning", "B"))
        }
        if seconds
        else None,
        "raw": {"left": left, **rates, "evaluations": seconds},
    }


def print_line(found: dict, quiet: dict, batch: int) -> None:
    shares = "".join(
        f"  {name} {batch * found[name]:>6,.0f} ({found[name] / (quiet['spinning'] * found['left']):.0%})"
        for name in SIDES
    )
    ratio = found["sleeping_over_spinning"]
    spent = found["evaluation"]
    evaluations = f"  evaluation {spent['sleeping']:.1f} s, {spent['spinning']:.1f} s" if spent else ""
    print(
        f"{found['neighbors']} neighbors  {found['left']:>4.0%} of the cores left{shares}"
        f"  ratio {ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]{evaluations}",
        flush=True,
    )


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.neighbors",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--neighbors", type=int, nargs="+", default=[0, 1, 2], help="how many busy processes; first 0")
    parser.add_argument("--rounds", type=int, default=8, help="at least 6")
    parser.add_argument("--seconds", type=float, default=4.0, help="that a turn measures")
    parser.add_argument("--evaluations", type=int, default=1, help="A B B A, this often, for each number of neighbors")
    parser.add_argument("--task", default="simclr")
    parser.add_argument("--encoder", default="convnet")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--into", type=Path, default=machine.RESULTS)
    return parser.parse_args()


def main() -> None:
    asked, lines = options(), []
    if asked.neighbors[0] != 0:
        raise SystemExit("--neighbors: the first is 0, which the others are compared with")
    with tempfile.TemporaryDirectory() as place:
        turns = Turns(Path(place), asked)
        try:
            from ssl_core.task import tasks

            batch = tasks()[asked.task].Config().batch
            print(f"{asked.task}, {asked.encoder}: images a second (share of the quiet rate times what is left)")
            for count in asked.neighbors:
                lines.append(measure(turns, count, asked.rounds, asked.evaluations))
                print_line(lines[-1], lines[0], batch)
        finally:
            turns.end()
    what = {name: value for name, value in vars(asked).items() if name != "into"}
    print(
        machine.keep("neighbors", {"machine": machine.describe(), **what, "batch": batch, "lines": lines}, asked.into)
    )


if __name__ == "__main__":
    main()
