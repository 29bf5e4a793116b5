"""Options about where and how jobs run, under one name in every verb. None of them changes a result."""

import re
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from jobs.config.interval import Cadence
from jobs.tracking.connection import Mode, decide
from ssl_core.data.loaders.select import Name as Loader
from ssl_core.errors import BadInput
from ssl_core.storage.checkpoint import Keep


class Group(NamedTuple):
    """Fewest and most workers of each pretraining; (0, 0): none but this process."""

    least: int
    most: int


@dataclass(frozen=True, kw_only=True)
class Where:
    """Where a job runs and what it leaves behind."""

    storage: str = "runs"
    """folder that studies are kept in, on a cluster one that all machines share; or a URL (s3://, gs://)"""
    name: str | None = None
    """of the study; default: the preset's, or the dataset's"""
    workers: str = "0"
    """0: in this process; N: on Ray, each pretraining on N workers; MIN:MAX: as many as the cluster has room for, more
    or fewer as it changes"""
    address: str | None = None
    """of a Ray cluster to work on; default: RAY_ADDRESS, else Ray is started on this machine"""
    wait: str = "1m"
    """how long to wait for a cluster that does not answer yet, and then for one that is still too small"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: cuda if this machine has a GPU, else cpu"""
    checkpoint_every: str = "200"
    """steps between checkpoints, or time: 90s, 10m"""
    keep: int = 2
    """how many of the newest checkpoints stay"""
    keep_every: int = 0
    """checkpoints of steps that this divides stay for ever; 0: none"""
    hang_after: str = "20m"
    """how long a worker may take over a step until it is taken for hung, and started again"""
    tracking: Mode = "auto"
    """Weights & Biases; auto: online if you are logged in, else offline"""
    loader: Loader = "auto"
    """how image files are read; memory: decoded once and kept on the device; dali: NVIDIA DALI; torch: threads on
    the CPU; auto: memory if they fit, else dali on a GPU and torch on a CPU"""
    threads: int = -1
    """image-decoding threads for each worker; -1: the cores shared out"""
    compile: bool = False
    """train through torch.compile"""

    def checked(self) -> "Where":
        """With tracking decided. Raises BadInput for impossible values."""
        _ = self.group, self.cadence, self.wait_seconds, self.hang_seconds
        if self.keep < 1 or self.keep_every < 0:
            raise BadInput(f"--keep is {self.keep} and --keep-every {self.keep_every}, expected at least 1 and 0")
        if self.address and not self.group.most:
            raise BadInput("--address is a cluster's, but --workers 0 works in this process: give --workers 1 or more")
        if self.threads < 1 and self.threads != -1:
            raise BadInput(f"--threads is {self.threads}, expected at least 1, or -1")
        return replace(self, tracking=decide(self.tracking))

    @property
    def group(self) -> Group:
        """Raises BadInput."""
        found = re.fullmatch(r"(\d+)(?::(\d+))?", self.workers)
        group = Group(int(found[1]), int(found[2] or found[1])) if found else Group(1, 0)
        if group.least > group.most or (found and found[2] and not group.least):
            raise BadInput(f"--workers {self.workers}: expected 0 or more, or MIN:MAX such as 2:8")
        return group

    @property
    def cadence(self) -> Cadence:
        return Cadence.of(self.checkpoint_every, "--checkpoint-every")

    @property
    def keeping(self) -> Keep:
        return Keep(self.keep, self.keep_every)

    @property
    def hang_seconds(self) -> float:
        return Cadence.time(self.hang_after, "--hang-after")

    @property
    def wait_seconds(self) -> float:
        return Cadence.time(self.wait, "--wait")

    def place(self) -> str:
        """The device: "cuda" or "cpu". Raises BadInput if --device cuda cannot be had."""
        import torch

        if self.device == "cuda" and not self.group.most and not torch.cuda.is_available():
            raise BadInput("--device cuda: torch sees no GPU on this machine")
        return ("cuda" if torch.cuda.is_available() else "cpu") if self.device == "auto" else self.device
