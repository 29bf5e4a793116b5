"""Profiles some steps of a training: a trace, and a table of where the time went."""

import contextlib
import os
import tempfile
import time
import warnings
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from jobs.pretraining.profile_table import profile_table
from jobs.pretraining.run import Training
from jobs.study.warning_log import warn
from ssl_core.storage.files import write_bytes, write_text
from ssl_core.storage.retry import short_deadline

TRACE, SUMMARY = "profile/trace.json.gz", "profile/summary.txt"  # in a run's folder
WARM_UP = 10  # steps that are passed over, if the training has as many: the first compile, allocate and fill caches
QUIET = "99"  # torch prints what concerns the authors of its profiler, on any level up to 5
MOST_STEPS = 100  # some thousand events each, which are in memory until they are written


class StepProfile:
    """Profiles steps of one attempt of a run, as many as it asks for, if any. What fails in it is only a warning.

    Args:
        training: The run.
        first: How many steps are completed when it begins.
        last: How many are completed when it ends.
        device: Where this worker trains.
        wanted: Whether this worker is the one that is profiled.
    """

    def __init__(self, training: Training, first: int, last: int, device: torch.device, wanted: bool):
        self.training, self.device, self.first = training, device, first
        self.count = min(training.profile, last - first) if wanted else 0
        warm_up = min(WARM_UP, last - first - self.count)
        self.begin = first + warm_up
        self.profiler: profile | None = None
        self.started = 0.0

    def __enter__(self) -> "StepProfile":
        self.completed(self.first)
        return self

    def __exit__(self, *_) -> None:
        self._drop()

    def completed(self, step: int) -> None:
        """Begins, goes on or ends after so many steps of the training; nothing is raised."""
        if not self.count:
            return
        try:
            self._after(step)
        except Exception as error:  # of a library that looks into everything, or of a storage
            self._drop()
            self.count = 0
            warn(self.training.root, f"{self.training.name}: not profiled: {type(error).__name__}: {error}")

    def _after(self, step: int) -> None:
        end = self.begin + self.count
        if step == max(self.first, self.begin - 1):
            self._start()
        elif self.profiler and step < end:
            self.profiler.step()
        elif self.profiler and step == end:
            self._write(self._now() - self.started)
        if step == self.begin:
            self.started = self._now()

    def _start(self) -> None:
        """Starts the profiler, one step ahead if there is one: what it allocates first belongs to no step."""
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.device.type == "cuda" else [])]
        os.environ.setdefault("KINETO_LOG_LEVEL", QUIET)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a run that is too short for a step ahead
            steps = schedule(wait=0, warmup=min(1, self.begin - self.first), active=self.count, repeat=1)
            self.profiler = profile(activities=activities, schedule=steps)
            self.profiler.start()

    def _write(self, seconds: float) -> None:
        profiler, self.profiler = self.profiler, None
        assert profiler is not None
        profiler.stop()
        with tempfile.TemporaryDirectory() as folder:
            trace = Path(folder) / "trace.json.gz"
            profiler.export_chrome_trace(str(trace))
            data = trace.read_bytes()
        table = profile_table(profiler.events() or (), self.count, seconds)
        with short_deadline():
            write_bytes(self.training.folder / TRACE, data)
            write_text(self.training.folder / SUMMARY, f"{table}{self.training.folder / TRACE}\n")

    def _now(self) -> float:
        """Returns the time in seconds, when the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _drop(self) -> None:
        profiler, self.profiler = self.profiler, None
        if profiler:
            with contextlib.suppress(Exception):
                profiler.stop()
