"""`make lint` proves the import rules: each rule catches an import that breaks it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.command import ROOT

pytestmark = pytest.mark.slow

BROKEN = {
    "kernels/rotate/__init__.py": "import ssl_core.task",
    "ssl_core/train.py": "import wandb",
    "ssl_core/tasks/rotnet.py": "import ssl_core.tasks.jigsaw",
    "ssl_core/storage/checkpoint.py": "import ray",
    "ssl_core/encoders/build.py": "import triton",
    "cluster/scheduler.py": "import ssl_core.errors",
    "jobs/execution/run.py": "import ray",
    "ssl_core/data/remote.py": "import fsspec",
    "jobs/study/folder.py": "import jobs.tracking.tracker",
    "jobs/pretraining/run.py": "import jobs.evaluation.records",
    "jobs/report/collect.py": "import jobs.execution.progress",
    "jobs/sweep/grid.py": "import jobs.submission.command",
    "ssl_core/data/sampler.py": "import ssl_core.task",
    "ssl_core/storage/files.py": "import ssl_core.data.batch",
    "ssl_core/encoders/export.py": "import ssl_core.train",
    "ssl_core/data/listing.py": "import upath",
    "ssl_core/data/loaders/cpu.py": "import nvidia.dali",
}


def lint(folder: Path) -> subprocess.CompletedProcess:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env={"PYTHONPATH": str(folder)})


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tree")
    for name in ("kernels", "ssl_core", "cluster", "jobs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_rules_are_kept(tree):
    done = lint(tree)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", BROKEN)
def test_rule_catches(tree, path):
    good = (tree / path).read_text()
    (tree / path).write_text(f"{good}\n{BROKEN[path]}\n")
    try:
        done = lint(tree)
    finally:
        (tree / path).write_text(good)
    assert done.returncode != 0 and "BROKEN" in done.stdout, done.stdout
