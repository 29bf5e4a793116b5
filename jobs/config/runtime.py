"""Defines options about where and how jobs run, with one name in every verb. None of them changes a result."""

import re
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from jobs.config.interval import Interval
from jobs.tracking.connection import DecidedMode, Mode, decide_mode
from ssl_core.cuda_graph import Mode as CudaGraphs
from ssl_core.data.loaders.select import Name as Loader
from ssl_core.errors import UserError
from ssl_core.storage.checkpoint import Keep


class WorkerRange(NamedTuple):
    """Holds the fewest and the most workers of each pretraining; (0, 0) means this process alone."""

    min: int
    max: int


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """Says where a job runs and what it leaves behind."""

    storage: str = "runs"
    """folder that studies are kept in, on a cluster one that all its machines share; or a URL (s3://, gs://)"""
    name: str | None = None
    """name of the study; default: that of the preset or the dataset"""
    workers: str = "0"
    """0: run in this process
    N: run on Ray, each pretraining on N workers
    MIN:MAX: run on Ray, each pretraining on as many workers as fit, more or fewer as the cluster changes"""
    address: str | None = None
    """address of the Ray cluster to run on; default: RAY_ADDRESS, else Ray is started on this machine"""
    cluster_timeout: str = "1m"
    """how long to wait for a cluster that does not answer yet, and then for one that is still too small"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: cuda if this machine has a GPU, else cpu"""
    checkpoint_every: str = "200"
    """steps between checkpoints, such as 200, or time, such as 90s or 10m"""
    keep_last: int = 2
    """how many of the newest checkpoints are kept"""
    keep_every: int = 0
    """checkpoints whose step is a multiple of this number are kept forever; 0: none"""
    step_timeout: str = "20m"
    """how long a step may take before its worker counts as hung and is started again, such as 90s or 20m"""
    wandb: Mode = "auto"
    """tracking in Weights & Biases; auto: online if you are logged in, else offline"""
    loader: Loader = "auto"
    """how image files are read
    memory: decoded once and kept on the device
    dali: decoded by NVIDIA DALI
    cpu: decoded by threads on the CPU
    auto: memory if the images fit, else dali on a GPU and cpu on a CPU"""
    decode_threads: int = -1
    """threads of each worker that decode images; -1: the cores are divided among the workers"""
    compile: bool = False
    """train through torch.compile"""
    activation_checkpointing: bool = False
    """train with less memory: activations inside the encoder's blocks are computed again for the backward pass instead
    of kept, about a third more time for the same weights"""
    cuda_graphs: CudaGraphs = "off"
    """replay whole training steps as CUDA graphs, which saves launching kernels one by one; no GPU has run this yet
    on: always, an error where a step cannot be captured
    auto: where launching takes most of a step's time and a step can be captured"""

    def checked(self) -> "RuntimeConfig":
        """Returns the same options with tracking decided. Raises UserError for impossible values."""
        _ = self.worker_range, self.checkpoint_interval, self.cluster_timeout_s, self.step_timeout_s
        if self.keep_last < 1 or self.keep_every < 0:
            raise UserError(
                f"--keep-last is {self.keep_last} and --keep-every {self.keep_every}, expected at least 1 and 0"
            )
        if self.address and not self.worker_range.max:
            raise UserError("--address is a cluster's, but --workers 0 works in this process: give --workers 1 or more")
        if self.decode_threads < 1 and self.decode_threads != -1:
            raise UserError(f"--decode-threads is {self.decode_threads}, expected at least 1, or -1")
        if self.compile and self.activation_checkpointing:
            raise UserError("--activation-checkpointing does not go with --compile: give one of them")
        return replace(self, wandb=decide_mode(self.wandb))

    @property
    def worker_range(self) -> WorkerRange:
        """Returns `workers` as numbers. Raises UserError if it is not of the form N or MIN:MAX."""
        found = re.fullmatch(r"(\d+)(?::(\d+))?", self.workers)
        worker_range = WorkerRange(int(found[1]), int(found[2] or found[1])) if found else WorkerRange(1, 0)
        if worker_range.min > worker_range.max or (found and found[2] and not worker_range.min):
            raise UserError(f"--workers {self.workers}: expected 0 or more, or MIN:MAX such as 2:8")
        return worker_range

    @property
    def tracking(self) -> DecidedMode:
        """Returns how runs are tracked, which `checked` has decided."""
        assert self.wandb != "auto"
        return self.wandb

    @property
    def checkpoint_interval(self) -> Interval:
        """Returns `checkpoint_every` as an interval. Raises UserError if it is none."""
        return Interval.parse(self.checkpoint_every, "--checkpoint-every")

    @property
    def retention(self) -> Keep:
        """Returns which checkpoints are kept."""
        return Keep(self.keep_last, self.keep_every)

    @property
    def step_timeout_s(self) -> float:
        """Returns `step_timeout` in seconds. Raises UserError if it is no time."""
        return Interval.parse_seconds(self.step_timeout, "--step-timeout")

    @property
    def cluster_timeout_s(self) -> float:
        """Returns `cluster_timeout` in seconds. Raises UserError if it is no time."""
        return Interval.parse_seconds(self.cluster_timeout, "--cluster-timeout")

    def resolved_device(self) -> str:
        """Returns "cuda" or "cpu". Raises UserError if --device cuda is asked for and this machine, which has to
        work, has none."""
        import torch

        if self.device == "cuda" and not self.worker_range.max and not torch.cuda.is_available():
            raise UserError("--device cuda: torch sees no GPU on this machine")
        return ("cuda" if torch.cuda.is_available() else "cpu") if self.device == "auto" else self.device


def device_name(device: str) -> str:
    """Returns the name of the GPU that "cuda" or "cuda:N" means, or "cpu"."""
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"
