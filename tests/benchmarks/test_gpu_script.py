"""benchmarks/gpu.sh with a stand-in for Python: what it promises when steps fail, hang or cannot run."""

import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/gpu.sh"
DEVICE = "*get_device_name*) echo a GPU;;"
KERNELS = '*benchmarks.kernels*) echo {} >"${@: -1}/kernels.json"; echo row;;'
PARTS = {
    "tests": ("gpu-tests", "memcheck", "racecheck", "trainings", "loader-tests", "machine-code", "other-tests"),
    "tune": ("tune",),
    "kernels": ("kernels", "kernels-small", "train", "train-small", "cuda-graphs"),
    "throughput": ("throughput-224", "throughput-96", "throughput-32"),
    "loaders": ("loader",),
    "reproduce rotnet-cifar10-nin": ("pretrain", "evaluate"),
}


@pytest.fixture
def run(tmp_path):
    """Runs a copy of the script; `cases` say what the stand-in does for some of its arguments."""
    (tmp_path / "repo/benchmarks").mkdir(parents=True)
    (tmp_path / "temporary").mkdir()
    shutil.copy(SCRIPT, tmp_path / "repo/benchmarks")

    def run(part, *cases, sanitizer="", total=20, usage=False, **settings):
        for name, lines in (("python", f'case "$*" in {" ".join(cases)} esac'), ("compute-sanitizer", sanitizer)):
            (tmp_path / name).write_text(f"#!/bin/bash\n{lines}\n")
            (tmp_path / name).chmod(0o755)
        settings |= {"PYTHON": tmp_path / "python", "OUT": tmp_path / "out", "TOTAL": total}
        settings |= {"TMPDIR": tmp_path / "temporary", "PATH": f"{tmp_path}:/usr/bin:/bin"}
        command = ["bash", tmp_path / "repo/benchmarks/gpu.sh", *part.split()]
        environment = {name: str(value) for name, value in settings.items()}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
        assert (usage or not done.stderr) and not list((tmp_path / "temporary").iterdir())
        said = done.stdout.partition("== summary\n")[2].splitlines()
        return done, {
            line.split()[0]: line.split("s  ")[-1] for line in said if not line.startswith("==") and "s  " in line
        }

    return run


@pytest.mark.parametrize("part", PARTS)
def test_each_part_is_well(run, part):
    done, steps = run(part, DEVICE)
    assert done.returncode == 0 and steps == dict.fromkeys(PARTS[part], "ok")
    assert "a GPU\n" in done.stdout.partition("== summary")[2]


def test_what_is_said_and_left(run, tmp_path):
    done, steps = run("kernels", DEVICE, KERNELS)
    assert done.returncode == 0 and "== kernels\nrow\n" in done.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {
        "kernels.json",
        "kernels.log",
        "kernels-summary.txt",
    }
    assert done.stdout.endswith((tmp_path / "out/kernels-summary.txt").read_text())


@pytest.mark.parametrize("arguments", ["", "everything", "tests twice", "reproduce"])
def test_what_it_does_not_know(run, arguments):
    done, _ = run(arguments, usage=True)
    assert done.returncode == 2 and done.stderr.startswith("usage: ") and not done.stdout


def test_a_failure_counts_and_stops_nothing(run):
    done, steps = run("tests", "*machine_code*) echo why; exit 3;;", "*timm*|*simplejpeg*) exit 1;;")
    assert done.returncode == 1
    assert steps["machine-code"] == "failed: exit 3" and steps["other-tests"] == "ok"
    assert steps["trainings"] == "skipped: timm is not installed"
    assert steps["loader-tests"] == "skipped: simplejpeg is not installed"
    assert "machine-code failed: exit 3\nwhy\n" in done.stdout.partition("== summary")[0]


def test_what_was_done_is_not_done_again(run):
    fails = "*machine_code*) exit 3;;"
    run("tests", fails)
    done, steps = run("tests")
    assert done.returncode == 0 and steps.pop("machine-code") == "ok"
    assert set(steps.values()) == {"done before"} and len(steps) == len(PARTS["tests"]) - 1
    done, steps = run("tests", AGAIN=1)
    assert set(steps.values()) == {"ok"}


@pytest.mark.slow
def test_a_pretraining_that_was_cut_off_is_continued_and_then_evaluated(run, tmp_path):
    cut_off = 'pretrain*|*" pretrain "*) trap "exit 143" TERM; sleep 30 & wait;;'
    done, steps = run("reproduce rotnet-cifar10-nin", cut_off, total=2)
    assert done.returncode == 1 and re.fullmatch(r"failed: out of time after [12]s", steps["pretrain"])
    assert steps["evaluate"] == "waits for the pretraining: the same command continues it"
    done, steps = run("reproduce rotnet-cifar10-nin")
    assert steps == {"pretrain": "ok", "evaluate": "ok"}
    log = (tmp_path / "out/reproduce-rotnet-cifar10-nin.log").read_text()
    assert log.count("-m jobs.cli pretrain rotnet-cifar10-nin") == 2 and "--protocols nonlinear" in log


@pytest.mark.slow
def test_the_deadline_holds(run):
    start = time.monotonic()
    done, steps = run("tests", "*'-k gpu'*) echo begun; sleep 30;;", total=2)
    assert time.monotonic() - start < 25
    assert done.returncode == 1
    assert re.fullmatch(r"failed: out of time after [12]s", steps["gpu-tests"])
    assert steps["other-tests"] == "failed: no time left"


@pytest.mark.slow
def test_a_sanitizer_that_sees_no_device_is_no_failure(run):
    done, steps = run("tests", sanitizer="echo Device not supported; exit 1")
    assert done.returncode == 0 and steps["memcheck"].startswith("skipped: ")
    done, steps = run("tests", sanitizer="exit 1", AGAIN=1)
    assert done.returncode == 1 and steps["memcheck"] == "failed: exit 1"


def test_wheels_are_put_aside_for_the_steps(run, tmp_path):
    (tmp_path / "timm-1.whl").touch()
    done, steps = run(
        "kernels", "*pip*) echo wheels: $*;;", "*benchmarks.train*) echo path $PYTHONPATH;;", WHEELS=tmp_path
    )
    assert done.returncode == 0 and "wheels" not in steps
    assert f"--target {tmp_path}/temporary/" in (tmp_path / "out/kernels.log").read_text()
    assert f"path {tmp_path}/temporary/" in done.stdout
    done, steps = run("kernels", "*pip*) exit 1;;", WHEELS=tmp_path)
    assert done.returncode == 1 and steps["wheels"].startswith("failed: see ")
