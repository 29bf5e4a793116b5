"""Where a measurement was made, and how its file is written."""

import json
import os
import platform
import subprocess
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

RESULTS = Path(__file__).parents[1] / "results"
PEERS = (
    "torchvision",
    "kornia",
    "lightly",
    "nvidia-dali-cuda120",
    "nvidia-dali-cuda130",
    "webdataset",
    "simplejpeg",
    "pillow",
)


def describe() -> dict:
    """Processor, GPU, versions and commit."""
    cpu = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    versions = {name: version(name) for name in ("torch", "triton", "numba", "numpy")}
    versions |= {name: _installed(name) for name in PEERS if _installed(name)}
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "python": platform.python_version(),
        **versions,
        "commit": commit,
        "date": str(date.today()),
    }


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def result_path(name: str, machine: dict, folder: Path = RESULTS) -> Path:
    """<date>-<name>-<cpu or gpu>.json in a folder, for what `describe` says."""
    return folder / f"{machine['date']}-{name}-{'gpu' if machine['gpu'] else 'cpu'}.json"


def keep(name: str, result: dict, folder: Path = RESULTS) -> Path:
    """Writes a result into a folder, benchmarks/results unless told, beside its place and then there: a run that is
    cut off leaves what it had."""
    path = result_path(name, result["machine"], folder)
    folder.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(result, indent=1) + "\n")
    beside.replace(path)
    return path
