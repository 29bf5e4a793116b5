"""`python -m benchmarks.checkpoints`: what checkpoints cost training, against the same training without.

One run through `jobs.pretraining.worker.run_training`, in this process. Every block of so many steps has one
checkpoint or none, in ABBA order; it is taken early in its block, so that what its writing costs the steps beside it
falls into the same block.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import ClassVar
from unittest.mock import patch

import torch

import jobs.pretraining.recorder
import jobs.pretraining.run
import jobs.pretraining.worker
from benchmarks.harness import environment as machine
from benchmarks.harness.abba import interval, order, percent_text, ratios
from jobs.config.recipe import PretrainConfig
from jobs.config.runtime import RuntimeConfig
from jobs.study.folder import Study
from ssl_core.storage.checkpoint import Snapshot
from ssl_core.task import tasks
from ssl_core.train import Step, train

BAR = 1.03  # how many times as long training may take
AT = 3  # the step of a block after which its checkpoint is taken
WARM = 10  # steps before the first block


class Alternating:
    """In place of a run's Clock: due once in every block of ABBA's B."""

    def __init__(self, pairs: int, every: int):
        self.blocks, self.every = order(pairs), every

    def due(self, step: int) -> bool:
        block, place = divmod(step - WARM - 1, self.every)
        return 0 <= block < len(self.blocks) and self.blocks[block] == "B" and place == AT - 1


class Timed(Snapshot):
    """Keeps how long copying, by the training thread, and writing, beside it, took, and what is on the disk then."""

    kept: ClassVar[list[dict]] = []

    def __init__(self, state: dict):
        start = time.perf_counter()
        super().__init__(state)
        self.copying = time.perf_counter() - start

    def save(self, folder, keep):
        start = time.perf_counter()
        path = super().save(folder, keep)
        seconds = time.perf_counter() - start
        self.kept.append({"copied": self.copying, "written": seconds, "bytes": path.stat().st_size})
        return path


def _timed(moments: list[float], every: int, model, *arguments) -> Iterator[Step]:
    """`train`, with the moment before the first step and after each, the loop's own work on it included."""
    device = next(model.parameters()).device
    for step in train(model, *arguments):
        if not moments:
            moments.append(time.perf_counter())  # the first step is one of those that warm up
        yield step
        if device.type == "cuda" and (step.number - WARM) % every == 0:
            torch.cuda.synchronize(device)
        moments.append(time.perf_counter())


def measure(asked: argparse.Namespace, folder: Path) -> dict:
    """Trains; -> the ratios of the pairs, their interval, and where the time goes."""
    steps = WARM + 4 * asked.pairs * asked.every + 1  # the last step never has a checkpoint
    study = Study.open(str(folder), "stall")
    study.describe()
    where = RuntimeConfig(storage=str(folder), name="stall", wandb="off")
    config = tasks()[asked.task].Config(batch=asked.batch)
    recipe = PretrainConfig(task=config, data=asked.data, size=asked.size, encoder=asked.encoder, steps=steps)
    training = jobs.pretraining.run.prepare_training(recipe, study, where.checked())
    moments: list[float] = []
    Timed.kept = []
    with ExitStack() as stack:
        stack.enter_context(patch.object(jobs.pretraining.worker, "train", partial(_timed, moments, asked.every)))
        stack.enter_context(
            patch.object(jobs.pretraining.worker, "IntervalTimer", lambda _: Alternating(asked.pairs, asked.every))
        )
        stack.enter_context(patch.object(jobs.pretraining.recorder, "Snapshot", Timed))
        jobs.pretraining.worker.run_training(training, where.resolved_device())
    if len(Timed.kept) != 2 * asked.pairs:
        raise RuntimeError(f"{len(Timed.kept)} checkpoints were written, expected {2 * asked.pairs}")
    return said(moments, asked.pairs, asked.every, Timed.kept)


def said(moments: list[float], pairs: int, every: int, kept: list[dict]) -> dict:
    """`moments`: the one before the first step, and after each."""
    bounds = [moments[WARM + i * every] for i in range(4 * pairs + 1)]
    blocks = [end - start for start, end in itertools.pairwise(bounds)]
    found = ratios(blocks)
    taken = [end - start for start, end in itertools.pairwise(moments)]
    usual = statistics.median(taken[WARM:])
    due = [WARM + i * every + AT - 1 for i, way in enumerate(order(pairs)) if way == "B"]
    return {
        "ratios": found,
        "interval": interval(found),
        "holds": interval(found)["low"] <= BAR,
        "step_ms": 1e3 * usual,
        "stall_ms": 1e3 * (statistics.median(taken[i] for i in due) - usual),
        "copied_ms": 1e3 * statistics.median(one["copied"] for one in kept),
        "written_ms": 1e3 * statistics.median(one["written"] for one in kept),
        "bytes": kept[-1]["bytes"],
    }


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="rotnet")
    parser.add_argument("--encoder", default="convnet")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--size", type=int, help="side of the images in pixels; default: the dataset's own")
    parser.add_argument("--batch", type=int, default=32, help="images in a step: the fewer, the more a stall weighs")
    parser.add_argument("--every", type=int, default=50, help="steps between checkpoints")
    parser.add_argument("--pairs", type=int, default=21)
    parser.add_argument("--into", type=Path, default=machine.RESULTS, help="folder of the result")
    return parser.parse_args()


def main() -> None:
    asked = options()
    result = {"machine": machine.describe(), **{k: v for k, v in vars(asked).items() if k != "into"}}
    print(", ".join(f"{name} {value}" for name, value in result["machine"].items()))
    with tempfile.TemporaryDirectory() as place:
        found = measure(asked, Path(place))
    print(
        f"{asked.task} with {asked.encoder}, batch {asked.batch}: a step takes {found['step_ms']:.1f} ms, one with a "
        f"checkpoint {found['stall_ms']:+.1f} ms; copying its {found['bytes'] / 1e6:.1f} MB takes "
        f"{found['copied_ms']:.1f} ms, writing them beside the next steps {found['written_ms']:.0f} ms"
    )
    level = found["interval"]["level"]
    print(
        f"with a checkpoint every {asked.every} steps training takes longer by {percent_text(found['interval'])}, the "
        f"median of {asked.pairs} ABBA pairs and its {level:.1%} interval by the sign test; the bar of 3 % "
        f"{'holds' if found['holds'] else 'FAILS'}"
    )
    print(machine.keep(f"checkpoints-{asked.encoder}", result | found, asked.into))


if __name__ == "__main__":
    main()
