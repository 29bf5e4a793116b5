"""Trainings that are alive at the same time and take turns, so that rounds last seconds although starts take minutes.

A side is one command that trains through `jobs.pretraining.worker.run_training`, as every run does. Its workers stop at
the end of each turn; the whole side, launcher, daemons and all, is then frozen (SIGSTOP) until its next turn, so that
what a launcher does in the background is paid by its own side alone.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Literal
from unittest.mock import patch

import torch
import torch.distributed as dist

import jobs.pretraining.run
import jobs.pretraining.worker
from benchmarks.harness import processes
from jobs.config.recipe import PretrainConfig
from jobs.config.runtime import RuntimeConfig
from jobs.study.folder import Study
from ssl_core.task import tasks
from ssl_core.train import Step, rank_and_world_size, train

PATIENCE = timedelta(minutes=15)  # for a side to start, or to finish its turn
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Side:
    """What one command trains, and how many turns of `warm` unmeasured and `block` measured steps it has."""

    name: str
    launcher: Literal["ray", "torchrun"]
    workers: int
    batch: int  # images of all workers together
    task: str
    encoder: str
    data: str
    size: int | None
    turns: int
    warm: int
    block: int
    port: int  # of the driver's TCPStore
    folder: str

    def command(self) -> list[str]:
        said = ["-m", "benchmarks.harness.scaling_worker", json.dumps(asdict(self))]
        if self.launcher == "ray":
            return [sys.executable, *said]
        run = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(self.workers)]
        return [sys.executable, *run, *said]

    def training(self) -> jobs.pretraining.run.Training:
        """The run as `tilespin pretrain` would have it. Raises UserError."""
        config = tasks()[self.task].Config(batch=self.batch)
        steps = self.turns * (self.warm + self.block)
        recipe = PretrainConfig(task=config, data=self.data, size=self.size, encoder=self.encoder, steps=steps)
        where = RuntimeConfig(
            storage=self.folder, name=self.name, workers=str(self.workers), checkpoint_every="24h", wandb="off"
        )
        return jobs.pretraining.run.prepare_training(recipe, Study.open(self.folder, self.name), where.checked())


def train_in_turns(side: Side, device: str) -> dict:
    """What `jobs.pretraining.worker.run_training` returns, on each of the side's workers."""
    _lead_a_session()
    store = dist.TCPStore("127.0.0.1", side.port, is_master=False, timeout=PATIENCE)
    with patch.object(jobs.pretraining.worker, "train", partial(_in_turns, side, store)):
        return jobs.pretraining.worker.run_training(side.training(), device)


def _lead_a_session() -> None:
    """As torchrun's workers do and Ray's do not: where others compete for the cores, Linux shares them out by session
    (sched_autogroup), so that a launcher would be slower or faster for reasons that are none of its own."""
    if os.getsid(0) != os.getpid():
        if os.getpgid(0) == os.getpid():  # the leader of a group has to leave it first
            os.setpgid(0, os.getpgid(os.getppid()))
        os.setsid()


def _in_turns(side: Side, store: dist.TCPStore, model, *arguments) -> Iterator[Step]:
    steps, (rank, _) = train(model, *arguments), rank_and_world_size()
    device = next(model.parameters()).device
    for turn in range(side.turns):
        store.set(f"{side.name} waits {turn} {rank}", "")
        store.wait([f"{side.name} goes {turn}"])
        for _ in range(side.warm):
            yield next(steps)
        _settle(device)
        start = time.perf_counter()
        for _ in range(side.block):
            yield next(steps)  # what the loop does with a step, writing rows for one, is measured as well
        _settle(device)
        store.set(f"{side.name} took {turn} {rank}", repr(time.perf_counter() - start))


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Running:
    """A side whose workers wait for their first turn, frozen."""

    def __init__(self, side: Side, store: dist.TCPStore, log: Path):
        self.side, self.store, self.log, self.turn = side, store, log, 0
        Study.open(side.folder, side.name).describe()
        quiet = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), "RAY_ADDRESS": ""}
        with open(log, "w") as out:
            self.process = subprocess.Popen(
                side.command(), cwd=ROOT, env={**os.environ, **quiet}, stdout=out, stderr=subprocess.STDOUT
            )
        self.frozen: list[int] = []

    def take(self) -> tuple[float, float]:
        """Of the next turn: seconds of a step by the clock, and of the processors by all of the side's processes, which
        hardly hang on what else the machine does."""
        side = self.side
        used = processes.seconds(self.process.pid)
        processes.thaw(self.frozen)
        self.store.set(f"{side.name} goes {self.turn}", "")
        self._await("took")
        seconds = float(self.store.get(f"{side.name} took {self.turn} 0")) / side.block
        self.turn += 1
        if self.turn < side.turns:
            self.park()
        used = processes.seconds(self.process.pid) - used
        return seconds, used / (side.warm + side.block)

    def park(self) -> None:
        self._await("waits")
        self.frozen = processes.freeze(self.process.pid)

    def _await(self, what: str) -> None:
        """Until all workers have said so. Raises RuntimeError, with the side's last words, if it ends before."""
        keys = [f"{self.side.name} {what} {self.turn} {rank}" for rank in range(self.side.workers)]
        until = time.monotonic() + PATIENCE.total_seconds()
        while not self.store.check(keys):
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{self.side.name} does not answer:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.05)

    def finish(self) -> None:
        """Lets the training end by itself. Raises RuntimeError unless it ended well."""
        if self.process.wait(PATIENCE.total_seconds()):
            raise RuntimeError(f"{self.side.name} failed:\n{self.log.read_text()[-3000:]}")


@contextmanager
def started(sides: Sequence[Side], store: dist.TCPStore) -> Iterator[list[Running]]:
    """Starts one after the other. On the way out all of their turns have to have been taken."""
    running: list[Running] = []
    try:
        for side in sides:
            running.append(Running(side, store, Path(side.folder) / f"{side.name}.log"))
            running[-1].park()
        yield running
        for one in running:
            one.finish()
    finally:
        for one in running:
            if one.process.poll() is None:
                processes.kill(one.process.pid)
                one.process.wait()


def meeting_point() -> dist.TCPStore:
    """Where sides and their driver meet, on a free port of this machine."""
    return dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=PATIENCE)
