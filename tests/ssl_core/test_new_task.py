"""A task is one file: it is found, trained and offered by the command line with nothing else to edit."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from support.plugin_package import TASK as FLIP
from support.synthetic_images import FORMAT, batch_of, gradients, pretext

import ssl_core.tasks
from ssl_core.optim import Optim
from ssl_core.task import task_name, tasks
from ssl_core.train import TrainConfig, train

ROOT = Path(__file__).parents[2]


@pytest.fixture
def flip_file(tmp_path):
    """flip.py in a folder that the tasks' package looks in, for as long as a test lasts."""
    (tmp_path / "flip.py").write_text(FLIP)
    ssl_core.tasks.__path__.append(str(tmp_path))
    yield
    ssl_core.tasks.__path__.remove(str(tmp_path))
    sys.modules.pop("ssl_core.tasks.flip", None)
    vars(ssl_core.tasks).pop("flip", None)


def test_a_file_in_the_folder_is_a_task(flip_file):
    assert "flip" in tasks() and "rotnet" in tasks()
    assert task_name(tasks()["flip"].Config()) == "flip"
    model = pretext("flip")
    plan = TrainConfig(steps=20, seed=0, optim=Optim(lr=0.1))
    losses = [float(step.metrics["loss"]) for step in train(model, [batch_of(8)] * 20, FORMAT, plan)]
    assert losses[-1] < 0.5 * losses[0]


def test_without_its_file_there_is_no_such_task():
    assert "flip" not in tasks()


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The program's packages elsewhere, with flip.py added to the tasks and some pictures beside them."""
    root = tmp_path_factory.mktemp("copy")
    for package in ("kernels", "ssl_core", "cluster", "jobs"):
        shutil.copytree(ROOT / package, root / package)
    (root / "ssl_core" / "tasks" / "flip.py").write_text(FLIP)
    (root / "pictures").mkdir()
    for number, image in enumerate(gradients(6).numpy()):
        Image.fromarray(image).save(root / "pictures" / f"{number}.png")
    return root


def tilespin(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "jobs.cli", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900)


@pytest.mark.slow
def test_the_command_line_offers_it(copy):
    done = tilespin(copy, "pretrain", "flip", "--help")
    assert done.returncode == 0, done.stderr
    assert "Say whether an image was mirrored." in done.stdout
    assert "--eagerness" in done.stdout and "an option of this task's own" in done.stdout


@pytest.mark.slow
def test_the_command_line_trains_it(copy):
    done = tilespin(
        copy,
        "pretrain",
        "flip",
        "--steps",
        "3",
        "--data",
        "pictures",
        "--size",
        "32",
        "--workers",
        "0",
        "--decode-threads",
        "1",
        "--wandb",
        "off",
        "--storage",
        str(copy / "runs"),
    )
    assert done.returncode == 0, done.stderr
    assert "3 steps" in done.stdout
    assert list((copy / "runs").rglob("encoder.json"))
