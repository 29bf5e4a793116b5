"""Submitting to a real cluster from a folder that is not the repository's: progress, exit codes, Ctrl-C, no secrets."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.command import ROOT, forked
from support.head import Head, command, left_by

from cluster import code_upload

pytestmark = pytest.mark.ray

USER = {"WANDB_API_KEY": "planted-user-key-0123456789", "AWS_SECRET_ACCESS_KEY": "planted-user-secret-0123456789"}
FILES = (".env", "jobs/.env", "id_rsa", "ssl_core/id_rsa", "kernels/server.pem", "cluster/tls.key", "jobs/.netrc")
PLANTED = b"planted-"
SHORT = (
    "--size",
    32,
    "--batch",
    16,
    "--encoder",
    "convnet-plain",
    "--wandb",
    "off",
    "--decode-threads",
    1,
    "--workers",
    0,
)  # in the driver itself: one process less to wait for


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of the program with key files planted in it."""
    place = tmp_path_factory.mktemp("checkout")
    for room in code_upload.PACKAGES:
        shutil.copytree(ROOT / room, place / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".gitignore", place)
    for name in FILES:
        (place / name).write_text(f"planted-file-{name}")
    return place


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory, shapes) -> Path:
    """Where the user stands: a folder that holds images."""
    place = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(shapes, place / "shapes")
    return place


@pytest.fixture(scope="module")
def studied(cluster, checkout, elsewhere) -> str:
    """What `submit study demo` said, made short."""
    return cluster.run(
        "submit",
        "--address",
        cluster.address,
        "study",
        "demo",
        "--data",
        "shapes",
        "--size",
        32,
        "--budget",
        4,
        "--num-labels",
        120,
        "--protocols",
        "knn",
        "--tasks",
        "rotnet",
        "--no-supervised",
        "--wandb",
        "offline",
        cwd=elsewhere,
        env=USER | {"PYTHONPATH": str(checkout)},
    )


def jobs_of(cluster: Head) -> str:
    return cluster.run("jobs", "list", "--address", cluster.address, env={"COLUMNS": "200"})


def test_study_runs_from_elsewhere(cluster, studied, elsewhere):
    """What is relative lies where the user stands, not in the cluster's temporary folders."""
    assert "trained   rotnet-" in studied and "evaluated knn/rotnet-" in studied
    assert f"results: {elsewhere}/runs/demo/report.html" in studied and "succeeded after" in studied
    assert (elsewhere / "runs/demo/results.csv").exists() and (elsewhere / "runs/demo/report.html").exists()
    described = json.loads((elsewhere / "runs/demo/study.json").read_text())
    assert described["config"]["pretrain"]["data"] == str(elsewhere / "shapes")
    id = re.search(r"submitted (demo-\d{8}-\d{6})\n", studied)[1]
    assert re.search(rf"{id} +succeeded +study", jobs_of(cluster))
    assert "trained   rotnet-" in cluster.run("jobs", "logs", id, "--no-follow", "--address", cluster.address)


def test_no_secret_is_left_anywhere(cluster, studied, elsewhere):
    """Neither the user's keys, nor the machine's, nor those that lay in the checkout, nor the cluster's token, are in
    the study, the job's description, its log, or what Ray keeps of it, the code that was sent included."""
    script = (
        "import sys, json; from cluster.ray_jobs import RayJobsClient; jobs = RayJobsClient(sys.argv[1])\n"
        "print(json.dumps([info.dict() for info in jobs.client.list_jobs()], default=str))"
    )
    run = dict(env=cluster.env, cwd=ROOT, capture_output=True, text=True, check=True)
    told = subprocess.run([sys.executable, "-c", script, cluster.address], **run).stdout
    assert "jobs.cli study --config" in told and "working_dir" in told
    found = {"jobs": told.encode(), "said": studied.encode()}
    found |= {str(path): held for folder in (elsewhere, cluster.folder) for path, held in left_by(folder)}
    found.pop(str(cluster.folder / "token"))
    sent = [name for name in found if "working_dir_files" in name and name.endswith(("jobs/cli.py", "id_rsa", ".env"))]
    assert sent and all(name.endswith("jobs/cli.py") for name in sent)
    assert any("runs/demo/wandb" in name for name in found)
    for secret in (PLANTED, cluster.token.encode()):
        assert not [name for name, held in found.items() if secret in held]


def test_results_come_home_from_another_machine(cluster, studied, elsewhere, tmp_path):
    """What only the cluster can read arrives through a job's log."""
    script = (
        "import sys; from pathlib import Path; from cluster.ray_jobs import RayJobsClient\n"
        "from jobs.submission.results import fetch_results\n"
        "print(*fetch_results(RayJobsClient(sys.argv[1]), 'fetched', sys.argv[2], sys.executable, Path('demo')))"
    )
    run = dict(env=cluster.env, cwd=tmp_path, capture_output=True, text=True, check=True)
    ran = [sys.executable, "-c", script, cluster.address, f"{elsewhere}/runs/demo"]
    assert subprocess.run(ran, **run).stdout == "demo/results.csv demo/report.html\n"
    for name in ("results.csv", "report.html"):
        assert (tmp_path / "demo" / name).read_bytes() == (elsewhere / "runs/demo" / name).read_bytes()


def test_exit_codes_are_the_jobs_own(cluster, elsewhere):
    """1 for a training that diverges, 2 for data that only the cluster could miss, which no retry helps."""
    submit = ("submit", "--address", cluster.address, "--retries", 1, "pretrain", "rotnet", *SHORT, "--data", "nowhere")
    with forked(*submit, cwd=elsewhere, env=cluster.env) as other:
        steep = (*submit[:3], *submit[5:-1], "shapes", "--lr", 1e30, "--steps", 40, "--name", "steep")
        said = cluster.run(*steep, cwd=elsewhere, code=1)
        done = other.wait()
    refused = done.stdout + done.stderr
    assert done.returncode == 2 and "no such folder" in refused and "exit code 2" in refused
    assert refused.count("submitted ") == 1
    assert said.count("submitted steep-") == 1 and "failed after" in said and "exit code 1" in said


def test_killed_driver_is_retried_and_interrupt_detaches(cluster, elsewhere):
    """A driver that was killed goes on from its checkpoint, as another job; Ctrl-C leaves that alone and says how to
    follow and how to stop it, which both work."""
    submit = command(
        "submit",
        "--address",
        cluster.address,
        "--retries",
        1,
        "pretrain",
        "rotnet",
        *SHORT,
        "--data",
        "shapes",
        "--steps",
        100000,
        "--checkpoint-every",
        20,
        "--name",
        "long",
    )
    run = dict(cwd=elsewhere, env=cluster.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with subprocess.Popen(submit, **run) as waiting:
        until(lambda: list(elsewhere.glob("runs/long/pretrain/*/checkpoints/step-*.json")), waiting)
        (metrics,) = elsewhere.glob("runs/long/pretrain/*/metrics.jsonl")
        first = metrics.read_text().splitlines()[0]
        os.kill(driver_of("long"), signal.SIGKILL)
        before = read_to(waiting, "trying again as ")
        after = read_to(waiting, ": step ")
        waiting.send_signal(signal.SIGINT)
        said = waiting.communicate(timeout=900)[0]
    assert "exit code 137" in before and "submitted long-" in after
    assert waiting.returncode == 130 and "which goes on" in said and "Traceback" not in said
    again, end = (re.search(rf"{what}: +tilespin (jobs .*)", said)[1].split() for what in ("follow it", "stop it"))
    assert re.fullmatch(r"long-\d{8}-\d{6}-1", again[2]) and again[2] == end[2]
    assert re.search(rf"{again[2]} +running", jobs_of(cluster))
    with subprocess.Popen(command(*again), **run) as attached:
        read_to(attached, ": step ")
        assert "is being stopped" in cluster.run(*end)
        said = attached.communicate(timeout=900)[0]
    assert attached.returncode == 1 and "was stopped" in said
    assert re.search(rf"{again[2]} +stopped", jobs_of(cluster))
    rows = metrics.read_text().splitlines()
    assert rows[0] == first, "the second attempt began anew"
    steps = [row["step"] for row in map(json.loads, rows) if "loss" in row]
    assert steps == sorted(set(steps))


def until(there: Callable, waiting: subprocess.Popen) -> None:
    while not there():
        assert waiting.poll() is None, waiting.stdout.read()
        time.sleep(0.05)


def read_to(process: subprocess.Popen, words: str) -> str:
    """What it says up to the line with `words` in it, as it says it."""
    said = ""
    while words not in said:
        line = process.stdout.readline()
        assert line, said
        said += line
    return said


def driver_of(name: str) -> int:
    """The process of the job whose study is called `name`, not that of the shell which started it."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        words = path.read_bytes().split(b"\0") if path.exists() else []
        if b"jobs.cli" in words[1:4] and b"submit" not in words and any(f'"{name}"'.encode() in word for word in words):
            return int(path.parent.name)
    raise AssertionError(f"no driver of {name}")


def test_nothing_wrong_is_submitted(cluster, elsewhere):
    """A typo costs no job; without the token, or where no cluster is, one line says so."""
    before = jobs_of(cluster)
    said = cluster.run("submit", "--address", cluster.address, "study", "demo", "--protocols", "linaer", code=2)
    assert "there is attentive, collapse, " in said
    assert "knows no job" in cluster.run("jobs", "stop", "nothing", "--address", cluster.address, code=1)
    said = cluster.run("jobs", "list", "--address", cluster.address, code=1, env={"RAY_AUTH_MODE": "disabled"})
    assert "wants its token" in said and len(said.splitlines()) == 1
    said = cluster.run("submit", "--address", cluster.address, "--dry-run", "pack", "shapes", "small", cwd=elsewhere)
    options = f'{{"src": "{elsewhere}/shapes", "dst": "{elsewhere}/small"}}'
    assert f"command: {sys.executable} -m jobs.cli pack --config '{options}'\n" in said
    assert jobs_of(cluster) == before
