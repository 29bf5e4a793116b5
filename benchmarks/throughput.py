"""`python -m benchmarks.throughput`: images a second of whole trainings, from image files to updated weights.

Tilespin trains in turns with the loop that a person would write (torchvision in a DataLoader), with lightly's
transforms and losses in that loop, and with the same model on one batch that never changes, the ceiling. All train the
same encoder and head, from the same weights, with the same optimizer. A turn passes over some steps, until what was
prepared before it is used up, and then measures whole steps; the next one begins when nobody prepares anything any
more. Images of 32 px are CIFAR-10; larger ones are photos, in a folder of JPEG files that is given, else made up:
realistic for codecs only. Which images lie in memory is Tilespin's own choice, as in any training; "packed" reads what
`tilespin pack` wrote.

A case that today's file has from the same machine is not measured again, so a run that was cut off continues.
"""

import argparse
import importlib
import itertools
import json
import os
import pkgutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import benchmarks.pipelines
from benchmarks.harness import abba, processes
from benchmarks.harness import environment as machine
from benchmarks.loader import make_photos, pack
from benchmarks.pipelines import Case
from jobs.pretraining.profile_table import part_seconds
from jobs.pretraining.step_profile import QUIET
from ssl_core.data.dataset import open_source
from ssl_core.data.packing.shard import Packing
from ssl_core.macs import encoder_macs

TASKS = ("rotnet", "jigsaw", "simclr", "mae")
# by how large they are; MAE needs a vision transformer, the other tasks also take one
ENCODERS = {
    "small": {"default": "convnet", "mae": "vit_tiny_patch16_224", "mae at 32": "vit-small-images"},
    "large": {"default": "resnet50", "mae": "vit_base_patch16_224", "mae at 32": "vit_small_patch8_224"},
}
OURS = "Tilespin"
PROFILED = 4  # steps
ENDS = 8  # losses at each end that say whether it falls
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense bf16 FLOP/s, from NVIDIA's data sheets


@dataclass
class Side:
    """A pipeline and what was measured of it."""

    steps: Iterator[Tensor]
    warm: int
    context: Callable[[], AbstractContextManager]
    losses: list[Tensor] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    def step(self) -> None:
        self.losses.append(next(self.steps))

    def turn(self, batch: int, seconds: float) -> None:
        """Passes over steps, then measures at least two, for at least so many seconds."""
        with self.context():
            for _ in range(self.warm):
                self.step()
            _settle(self.losses[-1])
            start, done = time.perf_counter(), 0
            while done < 2 or time.perf_counter() - start < seconds:
                self.step()
                done += 1
            _settle(self.losses[-1])
            self.rates.append(batch * done / (time.perf_counter() - start))
        _await_idle_children()

    def falls(self) -> bool:
        """Whether the mean of the last losses is below that of the first."""
        values = torch.stack(self.losses).float()
        return bool(values[-ENDS:].mean() < values[:ENDS].mean())


def _await_idle_children() -> None:
    """Waits until processes that this one has started have filled their queues."""
    before = -1.0
    while (used := processes.seconds(os.getpid()) - time.process_time()) > before + 0.02:
        before = used
        time.sleep(0.1)


def _settle(loss: Tensor) -> None:
    float(loss)  # waits for a GPU


def pipelines(case: Case) -> dict[str, Side]:
    """All of benchmarks/pipelines/ whose packages are installed."""
    found = {}
    for name in sorted(module.name for module in pkgutil.iter_modules(benchmarks.pipelines.__path__)):
        try:
            module = importlib.import_module(f"benchmarks.pipelines.{name}")
        except ImportError as error:
            print(f"without {name}: {error}")
            continue
        # a DataLoader has up to two batches of each process ahead, Tilespin's loaders two
        warm, context = 2 * case.cores + 1, getattr(module, "context", nullcontext)
        found |= {side: Side(steps, warm, context) for side, steps in module.pipelines(case).items()}
    return found


def measure(case: Case, rounds: int, seconds: float) -> dict:
    """All sides in turns, in one order and then in the other."""
    sides = pipelines(case)
    for side in sides.values():  # imports, compilers, filling memory with images
        side.turn(case.batch, 0)
        side.rates.clear()
    for number in range(rounds):
        for side in list(sides.values())[:: -1 if number % 2 else 1]:
            side.turn(case.batch, seconds)
    ours = sides[OURS]
    os.environ.setdefault("KINETO_LOG_LEVEL", QUIET)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        start = time.perf_counter()
        for _ in range(PROFILED):
            ours.step()
        _settle(ours.losses[-1])
        took = time.perf_counter() - start
    parts = {name: spent / took for name, spent in part_seconds(profiler.events() or ()).items()}
    lines = {name: {**_spread(side.rates), "loss_falls": side.falls()} for name, side in sides.items()}
    for name, side in sides.items():
        if name != OURS:
            lines[name]["times_as_fast"] = abba.interval([a / b for a, b in zip(ours.rates, side.rates)])
        side.steps.close()  # type: ignore[attr-defined]
    macs = encoder_macs(case.model(), case.size)
    return {"sides": lines, "parts": parts, "encoder_macs": macs, **_utilization(case, macs, lines[OURS]["median"])}


def _spread(rates: list[float]) -> dict:
    return {"median": statistics.median(rates), "low": min(rates), "high": max(rates), "rates": rates}


def _utilization(case: Case, macs: int, rate: float) -> dict[str, float]:
    """Model FLOPs utilization of a GPU whose peak is known, two FLOPs a multiply-accumulate."""
    name = torch.cuda.get_device_name() if case.device.type == "cuda" else ""
    peak = next((peak for part, peak in PEAK.items() if part in name), None)
    return {"utilization": 2 * macs * rate / peak} if peak and case.precision == "bf16" else {}


def encoder_of(size: str, task: str, side: int) -> str:
    names = ENCODERS[size]
    return names["mae at 32" if side == 32 else "mae"] if task == "mae" else names["default"]


def print_case(name: str, found: dict) -> None:
    print(f"\n{name}: images a second, median (least, most); Tilespin's rate over it; whether its loss falls")
    for side, line in sorted(found["sides"].items(), key=lambda item: -item[1]["median"]):
        ratio = line.get("times_as_fast")
        shown = f"{ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]" if ratio else ""
        falls = "" if line["loss_falls"] else "  ITS LOSS DOES NOT FALL"
        print(f"  {side:<24}{line['median']:>9,.0f} ({line['low']:,.0f}, {line['high']:,.0f})  {shown}{falls}")
    parts = ", ".join(f"{part} {share:.1%}" for part, share in found["parts"].items() if share >= 0.0005)
    use = f"; model FLOPs utilization {found['utilization']:.1%}" if "utilization" in found else ""
    print(f"  of Tilespin's time: {parts}{use}", flush=True)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.throughput",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", nargs="?", type=Path, help="of JPEG files")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 96, 224])
    parser.add_argument("--encoders", nargs="+", choices=list(ENCODERS), default=list(ENCODERS))
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=6, help="at least 6")
    parser.add_argument("--seconds", type=float, default=2.0, help="that a turn measures, at least")
    parser.add_argument("--compile", action="store_true", help="all sides through torch.compile")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--into", type=Path, default=machine.RESULTS, help="folder of the result")
    return parser.parse_args()


def main() -> None:
    asked = options()
    device, cores = torch.device(asked.device), len(os.sched_getaffinity(0))
    precision = "bf16" if device.type == "cuda" else "fp32"
    about = {"machine": machine.describe(), "precision": precision, "compile": asked.compile}
    about |= {"made_up": asked.folder is None, "batch": asked.batch, "rounds": asked.rounds, "seconds": asked.seconds}
    name = "throughput-compiled" if asked.compile else "throughput"
    path = machine.result_path(name, about["machine"], asked.into)
    cases = _kept(path, about)
    with tempfile.TemporaryDirectory() as place:
        folder = asked.folder or make_photos(Path(place) / "made")
        packed = pack(open_source(str(folder)), Path(place) / "packed", Packing())
        for size, encoder, task in itertools.product(asked.sizes, asked.encoders, asked.tasks):
            built = encoder_of(encoder, task, size)
            title = f"{task}, {built}, {size} px"
            if title in cases:
                print_case(f"{title} (from before)", cases[title])
                continue
            small = size == 32
            data = "cifar10" if small else str(folder)
            where = dict(device=device, precision=precision, compile=asked.compile, cores=cores)
            shown = dict(task=task, encoder=built, data=data, packed=None if small else packed, size=size)
            cases[title] = measure(Case(batch=asked.batch, **shown, **where), asked.rounds, asked.seconds)
            print_case(title, cases[title])
            machine.keep(name, {**about, "cases": cases}, asked.into)
    print(path)
    try:
        from benchmarks.plots import throughput_plot
    except ImportError:
        print("without the plot: matplotlib is not installed")
    else:
        throughput_plot.draw(path)


def _kept(path: Path, about: dict) -> dict:
    """The cases of an earlier run that measured in the same way."""
    if not path.exists():
        return {}
    found = json.loads(path.read_text())
    same = all(found.get(name) == value for name, value in json.loads(json.dumps(about)).items())
    return found["cases"] if same else {}


if __name__ == "__main__":
    main()
