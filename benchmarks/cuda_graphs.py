"""`python -m benchmarks.cuda_graphs`: what replaying whole steps as CUDA graphs changes, on this machine.

Two trainings of each task, one with graphs and one without, take steps in turn, each until the device is done, so that
a noisy neighbor hurts both. Without a GPU nothing is captured, and the difference is what static buffers cost.
"""

import argparse
import itertools
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness import environment as machine
from benchmarks.train import MEAN, STD, pretext
from ssl_core.cuda_graph import WARM_UP
from ssl_core.data.batch import Batch
from ssl_core.task import InputFormat, tasks
from ssl_core.train import TrainConfig, train

WARM = WARM_UP + 2  # unmeasured steps of each training


def measure(task: str, encoder: str, batch: Batch, precision: str, steps: int) -> dict[str, np.ndarray]:
    """Milliseconds of the steps of two trainings, without graphs and with."""
    device, size = batch.images.device, batch.images.shape[1]
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    graphs = {"off": "off", "on": "on" if device.type == "cuda" else "auto"}
    runs, taken = {}, {name: [] for name in graphs}
    for name, mode in graphs.items():
        model = pretext(task, {}, encoder, len(batch.ids), size).to(device, memory_format=torch.channels_last)
        # a small learning rate: noise teaches nothing, and must not blow up the weights
        optim = replace(model.task.config.optim, lr=1e-4)
        plan = TrainConfig(steps=WARM + steps, seed=0, optim=optim, precision=precision, cuda_graphs=mode)
        runs[name] = train(model, itertools.repeat(batch), InputFormat(MEAN, STD, dtype), plan)
    for _ in range(WARM + steps):
        for name, run in runs.items():
            started = time.perf_counter()
            next(run)
            if device.type == "cuda":
                torch.cuda.synchronize()
            taken[name].append(1e3 * (time.perf_counter() - started))
    return {name: np.array(every[WARM:]) for name, every in taken.items()}


def options() -> argparse.Namespace:
    alone = [name for name in tasks() if name not in ("multi", "supervised")]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="convnet", help="of tasks that do not need a vision transformer")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--size", type=int, default=32, help="side of the images in pixels")
    parser.add_argument("--steps", type=int, default=30, help="measured steps of each training")
    parser.add_argument("--tasks", nargs="+", choices=alone, default=alone)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--into", type=Path, default=machine.RESULTS, help="folder of the result")
    return parser.parse_args()


def main() -> None:
    asked = options()
    device = torch.device(asked.device)
    precision = "bf16" if device.type == "cuda" else "fp32"
    shape = (asked.batch, asked.size, asked.size, 3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ids = torch.arange(asked.batch)
    batch = Batch(*(t.to(device) for t in (images, ids, torch.zeros_like(ids), torch.ones(asked.batch), ids)))
    rows = []
    print(f"{asked.batch} images of {asked.size} px, {precision}: medians of {asked.steps} steps")
    print(f"{'task':<10} {'encoder':<17} {'off, ms':>9} {'on, ms':>9} {'on / off':>9}")
    for task in asked.tasks:
        encoder = "vit-small-images" if tasks()[task].needs_tokens else asked.encoder
        found = measure(task, encoder, batch, precision, asked.steps)
        off, on = (float(np.median(found[name])) for name in ("off", "on"))
        ratio = float(np.median(found["on"] / found["off"]))
        rows.append({"task": task, "encoder": encoder, "off_ms": off, "on_ms": on, "ratio": ratio})
        print(f"{task:<10} {encoder:<17} {off:>9.2f} {on:>9.2f} {ratio:>9.2f}", flush=True)
    what = {name: value for name, value in vars(asked).items() if name != "into"}
    result = {"machine": machine.describe(), **what, "precision": precision, "steps_of": rows}
    print(machine.keep(f"cuda-graphs-{asked.encoder}-{asked.size}", result, asked.into))


if __name__ == "__main__":
    main()
