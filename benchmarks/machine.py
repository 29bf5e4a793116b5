"""Where a measurement was made, and how its file is written."""

import json
import os
import platform
import subprocess
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"


def describe() -> dict:
    """Processor, GPU, versions and commit."""
    cpu = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    versions = {name: version(name) for name in ("torch", "triton", "numba", "numpy")}
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
    return {"cpu": cpu, "cores": os.cpu_count(), "threads": torch.get_num_threads(), "gpu": gpu,
            "python": platform.python_version(), **versions, "commit": commit, "date": str(date.today())}  # fmt: skip


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def keep(name: str, result: dict) -> Path:
    """Writes benchmarks/results/<date>-<name>-<cpu or gpu>.json."""
    where = "gpu" if result["machine"]["gpu"] else "cpu"
    path = RESULTS / f"{result['machine']['date']}-{name}-{where}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path
