"""Options about where and how jobs run, under one name in every verb. None of them changes a result."""

from dataclasses import dataclass, replace
from typing import Literal

from jobs.tracking import Mode, resolve
from ssl_core.data.loader import Name as Loader
from ssl_core.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Where:
    """Where a job runs and what it leaves behind."""

    storage: str = "runs"
    """folder that studies are kept in"""
    name: str | None = None
    """of the study; default: the preset's, or the dataset's"""
    workers: int = 0
    """0: in this process; N: on Ray (RAY_ADDRESS, else this machine), each pretraining on N workers"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: cuda if this machine has a GPU, else cpu"""
    checkpoint_every: int = 200
    """steps between checkpoints"""
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
        if self.workers < 0:
            raise BadInput(f"--workers is {self.workers}, expected 0 or more")
        if self.checkpoint_every < 1:
            raise BadInput(f"--checkpoint-every is {self.checkpoint_every}, expected at least 1 step")
        if self.threads < 1 and self.threads != -1:
            raise BadInput(f"--threads is {self.threads}, expected at least 1, or -1")
        return replace(self, tracking=resolve(self.tracking))

    def place(self) -> str:
        """The device: "cuda" or "cpu". Raises BadInput if --device cuda cannot be had."""
        import torch

        if self.device == "cuda" and not self.workers and not torch.cuda.is_available():
            raise BadInput("--device cuda: torch sees no GPU on this machine")
        return ("cuda" if torch.cuda.is_available() else "cpu") if self.device == "auto" else self.device
