"""benchmarks/gpu.sh with a stand-in for Python: what it promises when steps fail, hang or cannot run."""

import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/gpu.sh"
KERNELS = '*benchmarks.kernels*) echo {} >"${@: -1}/kernels.json"; echo row;;'
SUMMARY = (
    "device",
    "gpu-tests",
    "kernels",
    "kernels-small",
    "memcheck",
    "racecheck",
    "train",
    "train-small",
    "training-tests",
    "cuda-graphs",
    "loader-tests",
    "loader",
    "machine-code",
    "other-tests",
)


@pytest.fixture
def run(tmp_path):
    """Runs a copy of the script; `cases` say what the stand-in does for some of its arguments."""
    (tmp_path / "repo/benchmarks").mkdir(parents=True)
    (tmp_path / "temporary").mkdir()
    shutil.copy(SCRIPT, tmp_path / "repo/benchmarks")

    def run(*cases, sanitizer="", total=20, **settings):
        for name, lines in (("python", f'case "$*" in {" ".join(cases)} esac'), ("compute-sanitizer", sanitizer)):
            (tmp_path / name).write_text(f"#!/bin/bash\n{lines}\n")
            (tmp_path / name).chmod(0o755)
        settings |= {"PYTHON": tmp_path / "python", "OUT": tmp_path / "out", "TOTAL": total}
        settings |= {"TMPDIR": tmp_path / "temporary", "PATH": f"{tmp_path}:/usr/bin:/bin"}
        command = ["bash", tmp_path / "repo/benchmarks/gpu.sh"]
        environment = {name: str(value) for name, value in settings.items()}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
        assert not done.stderr and not list((tmp_path / "temporary").iterdir())
        said = done.stdout.partition("== summary\n")[2].splitlines()
        return done, {
            line.split()[0]: line.split("s  ")[-1] for line in said if not line.startswith("==") and "s  " in line
        }

    return run


def test_all_is_well(run, tmp_path):
    done, steps = run(KERNELS, "*pytest*) echo all passed;;")
    assert done.returncode == 0 and steps == dict.fromkeys(SUMMARY, "ok")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["kernels.json", "log.txt", "summary.txt"]
    assert done.stdout.endswith((tmp_path / "out/summary.txt").read_text())
    assert "== kernels\nrow\n" in done.stdout and done.stdout.endswith("== other-tests\nall passed\n")


def test_a_failure_counts_and_stops_nothing(run):
    done, steps = run(KERNELS, "*machine_code*) echo why; exit 3;;", "*timm*|*simplejpeg*) exit 1;;")
    assert done.returncode == 1
    assert steps["machine-code"] == "failed: exit 3" and steps["other-tests"] == "ok"
    skipped = ("train", "train-small", "training-tests", "cuda-graphs")
    assert all(steps[name] == "skipped: timm is not installed" for name in skipped)
    assert steps["loader"] == "skipped: simplejpeg is not installed"
    assert "machine-code failed: exit 3\nwhy\n" in done.stdout.partition("== summary")[0]


@pytest.mark.slow
def test_the_deadline_holds(run):
    start = time.monotonic()
    done, steps = run("*'-k gpu'*) echo begun; sleep 30;;", total=2)
    assert time.monotonic() - start < 25
    assert done.returncode == 1
    assert re.fullmatch(r"failed: out of time after [12]s", steps["gpu-tests"])
    assert steps["other-tests"] == "failed: no time left"


@pytest.mark.slow
def test_a_sanitizer_that_sees_no_device_is_no_failure(run):
    done, steps = run(sanitizer="echo Device not supported; exit 1")
    assert done.returncode == 0 and steps["memcheck"].startswith("skipped: ")
    done, steps = run(sanitizer="exit 1")
    assert done.returncode == 1 and steps["memcheck"] == "failed: exit 1"


def test_wheels_are_put_aside_for_the_steps(run, tmp_path):
    (tmp_path / "timm-1.whl").touch()
    done, steps = run("*pip*) echo wheels: $*;;", "*train*) echo path $PYTHONPATH;;", WHEELS=tmp_path)
    assert done.returncode == 0 and steps["wheels"] == "ok"
    assert f"--target {tmp_path}/temporary/" in (tmp_path / "out/log.txt").read_text()
    assert f"path {tmp_path}/temporary/" in done.stdout
