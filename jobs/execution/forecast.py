"""Forecasts how long trainings take, from the measured speed of their first steps."""

import time
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from statistics import mean, median

import torch

from jobs.pretraining.run import Training, build_model
from ssl_core.data.loaders.select import training_batches
from ssl_core.task import task_name
from ssl_core.train import train

MEASURED = 3  # steps that are timed, after one that is not: the first compiles and allocates


def measure_step_seconds(training: Training, device: str) -> float:
    """Trains the first steps of a run in this process, as one worker, and throws them away.

    Args:
        training: The run.
        device: "cuda" or "cpu".

    Returns:
        Seconds of a step, the median of three.

    Raises:
        UserError: If something in the run cannot work.
        OutOfMemoryError: If the GPU's memory is too small.
    """
    recipe, where = training.recipe, torch.device(device)
    source = recipe.source()
    model, format = build_model(recipe, source)
    _, batches = training_batches(
        source,
        batch=recipe.task.batch,
        steps=range(MEASURED + 1),
        seed=recipe.seed,
        rank=0,
        world=1,
        device=where,
        loader=training.loader,
        threads=training.threads,
        min_area=recipe.task.loader_min_area,
    )
    # the stub of Module.to does not have memory_format together with a device
    model = model.to(where, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    ends = []
    for step in train(model, batches, format, training.train_config):
        float(step.metrics["loss"])  # waits for the device
        ends.append(time.perf_counter())
    return median(later - earlier for earlier, later in pairwise(ends))


def forecast_trainings(trainings: list[Training], device: str) -> str:
    """Returns one line that says how long trainings take on this machine, one after the other; "" for none.

    Runs that differ by their seed, length or learning rate are as fast as each other, and one of them is measured.

    Args:
        trainings: The runs.
        device: "cuda" or "cpu".
    """
    speeds: dict[object, float] = {}
    total = 0.0
    for one in trainings:
        task = replace(one.recipe.task, optim=replace(one.recipe.task.optim, lr=0.0))
        kind = replace(one.recipe, task=task, seed=0, steps=0)
        if kind not in speeds:
            speeds[kind] = measure_step_seconds(one, device)
        total += one.recipe.steps * speeds[kind]
    if not trainings:
        return ""
    by_task = ", ".join(f"{task_name(kind.task)} {1000 * s:,.0f} ms" for kind, s in speeds.items())  # pyright: ignore
    return (
        f"about {format_seconds(total)} of training on one worker like this machine ({device}), by its first steps: "
        f"{by_task} a step; evaluations come on top"
    )


class RemainingTime:
    """Estimates how long the trainings of a study still take, from what those that run report."""

    def __init__(self) -> None:
        self.step_seconds: dict[str, float] = {}  # by task
        self.whole_seconds: dict[str, float] = {}  # by run, from its first to its last step

    def estimate(self, runs: Mapping[str, int], reported: Mapping[str, dict]) -> float | None:
        """Returns seconds, or None as long as nothing is known.

        A run that waits is as fast as one of the same task, and as long as the mean of the others if there is none:
        at equal budget they take about as long.

        Args:
            runs: The number of steps of each run that has not ended.
            reported: The last metrics of those that run, which are as many as run at once.
        """
        for name, row in reported.items():
            if name in runs:
                seconds = row["images"] / row["step"] / max(1e-9, row["images_per_second"])
                self.step_seconds[_task(name)] = seconds
                self.whole_seconds[name] = runs[name] * seconds
        if not self.whole_seconds:
            return None
        usual, left = mean(self.whole_seconds.values()), 0.0
        for name, steps in runs.items():
            seconds, done = self.step_seconds.get(_task(name)), reported.get(name, {"step": 0})["step"]
            left += usual if seconds is None else (steps - done) * seconds
        return left / max(1, len(reported.keys() & runs.keys()))


def _task(run: str) -> str:
    """Returns the task of a run, whose name is <task>-<hash>."""
    return run.rpartition("-")[0]


def format_seconds(seconds: float) -> str:
    """Returns a time with two digits in the unit that suits it, such as "4.2 min"."""
    for unit, length, most in (("s", 1, 100), ("min", 60, 6000)):
        if seconds < most:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds / 3600:,.2g} h" if seconds < 360_000 else f"{seconds / 3600:,.0f} h"
