"""W&B across restarts: whatever is killed when, its history has every row exactly once, in order. The client is the
real one; the server, on this machine, keeps what it is sent."""

import json
import signal
import subprocess
import sys

import pytest
from support.command import ROOT, environment
from support.wandb_server import Server, sync
from upath import UPath

from benchmarks.harness.processes import wait_for
from jobs.tracking import offline_runs

pytestmark = [pytest.mark.network, pytest.mark.slow]


@pytest.fixture
def server():
    with Server() as server:
        yield server


@pytest.fixture
def track(server, tmp_path):
    """Runs tests/support/tracked.py -> what it said. It goes on from where it stays, or is killed, as soon as
    `seen` is true."""

    def run(mode: str, folder, machine: str = "a", transmit: int = 1, seen=lambda: True, **options) -> dict:
        env = (
            environment()
            | server.environment()
            | {
                "PYTHONPATH": f"{ROOT}:{ROOT}/tests",
                "TILESPIN_CACHE": str(tmp_path / machine),
                "SECRET_TOKEN": "planted-secret",
                "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": str(transmit),
            }
        )
        arguments = [f"{name}={value}" for name, value in options.items()]
        command = [sys.executable, "-m", "support.tracked", mode, str(folder), *arguments]
        errors = tmp_path / "stderr"
        with (
            errors.open("w") as stderr,
            subprocess.Popen(command, env=env, stdin=-1, stdout=-1, stderr=stderr) as driver,
        ):
            if options.get("hold"):
                wait_for(seen, 120, "what is to be there before it goes on")
                driver.stdin.write(b"go\n")
                driver.stdin.flush()
            said = driver.stdout.readline()
            if options.get("kill"):
                wait_for(seen, 120, "what is to be there before it is killed")
            driver.communicate(b"now")
        assert driver.returncode == (-signal.SIGKILL if options.get("kill") else 0), errors.read_text()
        return {**json.loads(said), "stderr": errors.read_text()}

    return run


def judge(server: Server, restarts: list[int], last: int = 300) -> None:
    """The whole run lies on the server: every step once and in order, restarts marked."""
    run = server.runs["rotnet-1"]
    assert run.column("train/step") == list(range(1, last + 1))
    assert run.column("train/loss") == [pytest.approx(1 / step) for step in range(1, last + 1)]
    counts = run.column("train/restarts")
    assert counts == sorted(counts) and counts[-1] == len(restarts), "a staircase"
    # a row after a checkpoint that W&B got from the attempt that was killed keeps that one's count
    assert all(count <= sum(step > place for place in restarts) for step, count in enumerate(counts, start=1))
    assert len(run.column("samples")) == 1 and any(name.startswith("media/images/samples") for name in run.files)
    assert not run.rewritten, "a line was sent under the number of another"
    assert run.exit_code == 0 and run.summary["digest"] == "1" and run.about["groupName"] == "s"
    assert {artifact["artifactCollectionName"] for artifact in run.artifacts} == {"encoder-rotnet"}
    if restarts:
        assert run.summary["restarts"] == len(restarts)
        assert run.summary[f"restart/{len(restarts)}"] == f"from step {restarts[-1]}: node lost"
    assert not set(server.unknown) - {"/sdk/otel/v1/metrics"}


@pytest.fixture
def service(monkeypatch):
    """This process has a W&B service, which the processes it starts inherit: so do Ray's workers from a driver that
    asked whether the user is logged in."""
    code = "import os, wandb; wandb.setup().ensure_service(); print(os.environ['WANDB_SERVICE'], flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) as process:
        monkeypatch.setenv("WANDB_SERVICE", process.stdout.readline().strip())
        yield
        process.communicate("\n")


def test_offline_segments_of_killed_attempts_make_one_run(service, track, server, tmp_path):
    """Killed with rows in memory; then at once, before the first record is on disk. Synced in between, too."""
    folder = tmp_path / "study"
    track("offline", folder, kill=130)
    second = track("offline", folder, first=100, restarts=1, kill=260)
    assert 0 < second["held"] <= 130
    sync(server, folder)
    third = track("offline", folder, first=200, restarts=2, kill=201)
    assert second["held"] < third["held"] <= 260
    fourth = track("offline", folder, first=200, restarts=3)
    assert fourth["held"] >= third["held"]
    sync(server, folder)
    judge(server, [100, 200, 200])
    assert "No runs to sync" in sync(server, folder)
    left = b"".join(file.read_bytes() for file in folder.glob("wandb/**/*") if file.is_file())
    for secret in (b"planted-secret", server.environment()["WANDB_API_KEY"].encode()):
        assert secret not in left + server.received


def test_online_run_is_continued_where_the_server_is(track, server, tmp_path):
    """Killed when the server has less than the checkpoint, when it has more, and after the end, before that counted."""
    assert track("online", tmp_path, kill=130, transmit=120)["held"] == -1
    assert not server.runs["rotnet-1"].lines
    sent = lambda: 260 in server.runs["rotnet-1"].column("train/step")  # noqa: E731
    track("online", tmp_path, first=100, restarts=1, kill=260, seen=sent)
    ahead = track("online", tmp_path, first=200, restarts=2)
    assert ahead["held"] == 260
    judge(server, [100, 200])
    last = track("online", tmp_path, first=200, restarts=2)
    assert last["held"] == 301
    judge(server, [100, 200])


def test_outage_in_mid_run_stalls_nothing(track, server, tmp_path):
    """No step waits for a server that is down, nothing is lost, and the user hears nothing of it."""
    server.outage = 5.0
    said = track("online", tmp_path, last=1500, outage=10)
    assert server.refused > 0
    assert said["longest"] < 4 and "warning" not in said["stderr"]
    judge(server, [], last=1500)


def test_client_killed_in_mid_run_is_made_good_by_the_next_attempt(track, server, tmp_path):
    """W&B's own process dies: one warning, training goes on, and after a restart the rows are there."""
    said = track("offline", tmp_path, core=100, kill=250)
    assert said["longest"] < 20
    track("offline", tmp_path, first=250, restarts=1)
    sync(server, tmp_path)
    judge(server, [250])


def test_server_down_at_the_start_means_offline(track, server, tmp_path):
    """And when it is back, it gets all from the next attempt: the command that users are told sends nothing twice."""
    server.down = True
    said = track("online", tmp_path, patience=2, kill=130)
    assert said["stderr"].count("warning") == 1 and "tracked offline" in said["stderr"]
    assert offline_runs.last_step(tmp_path, "rotnet-1") > 0
    server.down = False
    assert track("online", tmp_path, first=100, restarts=1)["held"] == -1
    judge(server, [100])
    assert "No runs to sync" in sync(server, tmp_path)


def test_study_in_a_store(track, server, tmp_path, monkeypatch):
    """Every attempt on a machine of its own, with nothing but the store in common, where nothing of it stays."""
    (tmp_path / "store").mkdir()
    store = (tmp_path / "store").as_uri()
    kept = lambda: offline_runs.last_step(UPath(store), "rotnet-1") >= 50  # noqa: E731
    track("offline", store, hold=100, kill=130, machine="a", seen=kept)
    second = track("offline", store, first=100, restarts=1, kill=260, machine="b")
    assert 50 <= second["held"] <= 100, "as far as it was kept at the last checkpoint"
    assert list((tmp_path / "a").glob("wandb/running/*")), "of a machine that died"
    assert track("offline", store, first=200, restarts=2, machine="a")["held"] >= second["held"]
    assert not list((tmp_path / "a").glob("wandb/running/*"))
    monkeypatch.setenv("TILESPIN_CACHE", str(tmp_path / "here"))
    sync(server, UPath(store))
    judge(server, [100, 200])
    assert "No runs to sync" in sync(server, UPath(store))
    (artifact,) = {json.dumps(a["metadata"]) for a in server.runs["rotnet-1"].artifacts}
    assert json.loads(json.loads(artifact)) == {"digest": "1"}
    uploaded = server.received
    assert f"{store}/encoder.safetensors".encode() in uploaded and b"weights" not in uploaded


JUDGE = """
import os, sys
from pathlib import Path
from jobs.tracking.tracker import Tracker

mode, folder, value, kill = sys.argv[1:]
tracker = Tracker(mode, Path(folder), id="linear-1", study="s", job_type="evaluate", name="linear", config={})
tracker.result({"linear/top1": float(value)})
if int(kill):
    sys.stdin.readline()
    os.kill(os.getpid(), 9)
tracker.finish()
"""


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_judgment_that_is_made_again_replaces_the_first(server, tmp_path, mode):
    """A judgment killed before its result counted: the next may come out a little otherwise, and is the result; what
    an online server got of the first stays as the one row of history."""

    def there() -> bool:
        if mode == "online":
            return bool(server.runs["linear-1"].column("linear/top1"))
        return any(file.stat().st_size for file in tmp_path.glob("wandb/offline-run-*/run-*.wandb"))

    env = environment() | server.environment() | {"WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "1"}
    for value, kill, code in ((0.5, 1, -signal.SIGKILL), (0.625, 0, 0)):
        command = [sys.executable, "-c", JUDGE, mode, tmp_path, str(value), str(kill)]
        with subprocess.Popen(command, env=env, cwd=ROOT, stdin=subprocess.PIPE) as judging:
            if kill:
                wait_for(there, 120, "the first result")
            judging.communicate(b"now")
        assert judging.returncode == code
    if mode == "offline":
        sync(server, tmp_path)
    run = server.runs["linear-1"]
    assert run.column("linear/top1") == [0.5 if mode == "online" else 0.625] and run.history()[0]["_step"] == 0
    assert run.summary["linear/top1"] == 0.625 and run.exit_code == 0 and not run.rewritten
