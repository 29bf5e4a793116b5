"""`python -m benchmarks.train`: what the kernels change in a whole training step, on this machine.

Each task trains through the project's own loop, on synthetic images that stay on the device, in one process. Every
second step makes its batch in plain torch instead, so that a noisy neighbor hurts both. Plain torch leaves out what
it has no short way to say: Jigsaw's gray images and shifted channels (off on both sides) and the context encoder's
regions (rectangles on both sides).
"""

import argparse
import itertools
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from benchmarks.harness import environment as machine
from benchmarks.peers import eager
from kernels.random import RandomBits
from ssl_core.data.batch import Batch
from ssl_core.encoders import build as encoders
from ssl_core.task import DataInfo, InputFormat, PretextModel, tasks
from ssl_core.tasks import context, jigsaw, rotnet
from ssl_core.train import TrainConfig, train

TASKS = {
    "four turns": ("rotnet", {}),
    "one turn": ("rotnet", {"rotations": "one"}),
    "jigsaw": ("jigsaw", {"grayscale": 0.0, "shift": 0}),
    "context": ("context", {"mask": "blocks"}),
}
WARM = 3  # unmeasured steps of each kind
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def window(images, flips, offsets, size):
    """[b, size, size, 3]: each image's flipped window, by one gather."""
    index = torch.arange(size, device=images.device)
    rows = offsets[:, :1] + index
    columns = offsets[:, 1:] + torch.where(flips[:, None] != 0, size - 1 - index, index)
    return images[torch.arange(len(images), device=images.device)[:, None, None], rows[:, :, None], columns[:, None]]


def rotate(images, turns, flips, offsets, *, size, **options):
    return eager.rotate(window(images, flips, offsets, size), turns, **options)


def rotate_all(images, flips, offsets, *, size, **options):
    return eager.rotate_all(window(images, flips, offsets, size), **options)


def shuffle_tiles(images, permutations, corners, shifts, grays, *, tile, standardize, mean, std, **options):
    return eager.shuffle_tiles(images, permutations, corners, tile, **options)


def erase(images, flips, offsets, boxes, field, levels, *, size, **options):
    return eager.erase(window(images, flips, offsets, size), boxes, **options)


def plain() -> AbstractContextManager:
    """While this is open, the tasks make their batches in plain torch."""
    stack = ExitStack()
    stack.enter_context(patch.multiple(rotnet, rotate=rotate, rotate_all=rotate_all))
    stack.enter_context(patch.object(jigsaw, "shuffle_tiles", shuffle_tiles))
    stack.enter_context(patch.object(context, "erase", erase))
    return stack


WAYS = {"kernels": nullcontext, "plain torch": plain}


def mark(device: torch.device):
    """A moment on the device's own clock; taking it does not wait for the device."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def between(start, end) -> float:
    """Milliseconds between two marks."""
    return 1e3 * (end - start) if isinstance(start, float) else start.elapsed_time(end)


def pretext(task: str, options: dict, encoder: str, batch: int, size: int) -> PretextModel:
    """The module as a run would build it."""
    built, kind = encoders.build(encoder, size, seed=0), tasks()[task]
    info = encoders.describe(built, encoder, size)
    return PretextModel(built, kind(kind.Config(batch=batch, **options), info, DataInfo(size, images=batch)))


def same_batch(model: PretextModel, batch: Batch, format: InputFormat) -> None:
    """Raises AssertionError unless both ways make the same pixels, up to the last bits of bfloat16."""
    made = []
    for way in WAYS.values():
        with way():
            inputs, _ = model.task.make_batch(batch, RandomBits(batch.ids, batch.epochs, 0), format)
        made.append(inputs[0] if isinstance(inputs, tuple) else inputs)
    torch.testing.assert_close(*made, rtol=2e-2, atol=2e-2)
    assert made[0].stride() == made[1].stride()


def measure(
    model: PretextModel, batch: Batch, format: InputFormat, precision: str, steps: int, compile: bool
) -> dict[str, dict]:
    """Training steps of both ways in turn; by way, the statistics of its steps."""
    device, total = batch.images.device, 2 * (WARM + steps)
    made, taken, peaks = [], [], []
    make: Callable = model.task.make_batch

    def watched(*arguments):
        start = mark(device)
        result = make(*arguments)
        made.append((start, mark(device)))
        return result

    # a small learning rate: noise teaches nothing, and must not blow up the weights
    optim = replace(model.task.config.optim, lr=1e-4)
    plan = TrainConfig(steps=total, seed=0, optim=optim, precision=precision, compile=compile)
    with patch.object(model.task, "make_batch", watched):
        run = train(model, itertools.repeat(batch), format, plan)
        for way, _ in zip(itertools.cycle(WAYS.values()), range(total)):
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            with way():
                start = mark(device)
                next(run)
                taken.append((start, mark(device)))
            peaks.append(torch.cuda.max_memory_allocated() if device.type == "cuda" else 0)
    if device.type == "cuda":
        torch.cuda.synchronize()
    step, making = (np.array([between(*pair) for pair in pairs]) for pairs in (taken, made))
    return {
        way: statistics(step[first::2], making[first::2], len(batch.ids), max(peaks[first::2]))
        for first, way in zip((2 * WARM, 2 * WARM + 1), WAYS)
    }


def statistics(step: np.ndarray, making: np.ndarray, images: int, peak: int) -> dict:
    low, median, high = np.percentile(step, [20, 50, 80])
    return {
        "step_ms": median,
        "step_ms_p20": low,
        "step_ms_p80": high,
        "batch_ms": np.median(making),
        "batch_share": np.median(making / step),
        "images_per_second": 1e3 * images / median,
        "peak_bytes": peak,
    }


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="resnet50")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--steps", type=int, default=20, help="measured steps of each way")
    parser.add_argument("--compile", action="store_true", help="through torch.compile")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--into", type=Path, default=machine.RESULTS, help="folder of the result")
    return parser.parse_args()


def main() -> None:
    asked = options()
    device = torch.device(asked.device)
    precision, dtype = ("bf16", torch.bfloat16) if device.type == "cuda" else ("fp32", torch.float32)
    format = InputFormat(MEAN, STD, dtype)
    shape = (asked.batch, asked.size, asked.size, 3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ids = torch.arange(asked.batch)
    batch = Batch(*(t.to(device) for t in (images, ids, torch.zeros_like(ids), torch.ones(asked.batch), ids)))
    rows = []
    print(f"{asked.encoder}, {asked.batch} images of {asked.size} px, {precision}: medians of {asked.steps} steps")
    numbers = f"{'step ms':>9} {'p20':>9} {'p80':>9} {'batch ms':>9} {'share':>7} {'images/s':>9}"
    print(f"{'task':<12} {'batch from':<12} {numbers}  peak GB")
    for name in asked.tasks:
        task, changes = TASKS[name]
        model = pretext(task, changes, asked.encoder, asked.batch, asked.size)
        model = model.to(device, memory_format=torch.channels_last)
        same_batch(model, batch, format)
        for way, row in measure(model, batch, format, precision, asked.steps, asked.compile).items():
            rows.append({"task": name, "batch_from": way, **row})
            times = (
                f"{row['step_ms']:>9.2f} {row['step_ms_p20']:>9.2f} {row['step_ms_p80']:>9.2f} {row['batch_ms']:>9.3f}"
            )
            print(
                f"{name:<12} {way:<12} {times} {row['batch_share']:>7.2%} {row['images_per_second']:>9.0f}"
                f"  {row['peak_bytes'] / 2**30:.1f}"
            )
        # after each task, so that a run that is cut short leaves what it has
        what = {name: value for name, value in vars(asked).items() if name != "into"}
        result = {"machine": machine.describe(), **what, "precision": precision, "steps_of": rows}
        compiled = "-compiled" if asked.compile else ""
        path = machine.keep(f"train-{asked.encoder}-{asked.size}{compiled}", result, asked.into)
    print(path)


if __name__ == "__main__":
    main()
