"""Tracking may fail; the work goes on."""

import subprocess
import sys

import pytest
from support.command import ROOT, environment
from support.wandb_server import Server, sync

from jobs.tracking import offline_runs
from jobs.tracking.connection import resolve_mode
from jobs.tracking.tracker import Tracker
from ssl_core.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture
def broken(monkeypatch):
    """A W&B client whose service cannot be reached."""
    import wandb

    def init(**_):
        raise wandb.errors.CommError("no service")

    monkeypatch.setattr(wandb, "init", init)


def test_failure_warns_once_and_is_then_silent(broken, tmp_path, capsys):
    tracker = Tracker("online", tmp_path, id="x", study="s", job_type="pretrain", name="x", config={})
    tracker.log({"loss": 1.0}, 1)
    tracker.image("samples", tmp_path / "none.png", 2)
    tracker.finish()
    said = capsys.readouterr().err
    assert said.count("warning") == 1 and "the job goes on" in said and "no service" in said


def test_failure_in_mid_run_warns_once(tmp_path, capsys):
    """A picture that is not there: the run ends for W&B, and what follows is silent."""
    tracker = Tracker("offline", tmp_path, id="x", study="s", job_type="pretrain", name="x", config={})
    run = tracker.run
    tracker.image("samples", tmp_path / "none.png", 2)
    tracker.log({"loss": 1.0}, 1)
    tracker.finish()
    run.finish()
    assert capsys.readouterr().err.count("warning") == 1


@pytest.mark.parametrize(("said", "mode"), [("offline", "offline"), ("online", "online"), ("disabled", "off")])
def test_wandb_mode_is_respected(monkeypatch, said, mode):
    monkeypatch.setenv("WANDB_MODE", said)
    assert resolve_mode("auto") == mode
    assert resolve_mode("offline") == "offline", "an option given is stronger"


@pytest.mark.parametrize(
    ("variables", "mode"),
    [
        ({"WANDB_MODE": "OFFLINE"}, "offline"),
        ({"WANDB_MODE": "shared"}, "online"),
        ({"WANDB_MODE": "run"}, "online"),
        ({"WANDB_MODE": "dryrun"}, "offline"),
        ({"WANDB_DISABLED": "true", "WANDB_MODE": "online"}, "off"),
        ({"WANDB_DISABLED": "false", "WANDB_MODE": "offline"}, "offline"),
        ({"WANDB_MODE": "ofline"}, "WANDB_MODE is 'ofline': did you mean offline?"),
        ({"WANDB_MODE": "never"}, "WANDB_MODE is 'never': there is online, "),
        ({"WANDB_DISABLED": "perhaps"}, "WANDB_DISABLED is 'perhaps', expected true or false"),
    ],
)
def test_what_the_clients_variables_say(monkeypatch, variables, mode):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if mode in ("online", "offline", "off"):
        assert resolve_mode("auto") == mode
    else:
        with pytest.raises(UserError) as error:
            resolve_mode("auto")
        assert str(error.value).startswith(mode)
    assert resolve_mode("off") == "off", "an option given is stronger"


@pytest.mark.parametrize("mode", ["OFFLINE", "ofline", ""])
def test_a_mode_that_the_client_does_not_know_stops_no_run(monkeypatch, tmp_path, capsys, mode):
    monkeypatch.setenv("WANDB_MODE", mode)
    tracker = Tracker("offline", tmp_path, id="x", study="s", job_type="pretrain", name="x", config={})
    tracker.result({"top1": 0.5})
    tracker.finish()
    assert not capsys.readouterr().err and len(list(tmp_path.glob("wandb/offline-run-*"))) == 1


DECIDE = """
import sys
from jobs.tracking.connection import decide_mode
print(decide_mode(sys.argv[1]))
"""


def decided(mode: str, **variables: str) -> tuple[str, list[str]]:
    """What a process of its own decides -> (the mode, its stderr)."""
    env = {name: value for name, value in environment().items() if not name.startswith("WANDB")} | variables
    done = subprocess.run(
        [sys.executable, "-c", DECIDE, mode], cwd=ROOT, env=env, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr.splitlines()


@pytest.mark.network
def test_whether_the_server_answers_is_found_out_before_jobs_start():
    """It is online, refuses the key, fails, or is nowhere: one line, and offline."""
    with Server() as server:
        asks = server.environment() | {"WANDB_HTTP_TIMEOUT": "2"}
        assert decided("online", **asks) == ("online", [])
        server.denied = True
        mode, (line,) = decided("auto", **asks)
        assert mode == "offline" and "not logged in" in line and line.endswith("is tracked offline")
        server.denied, server.down = False, True
        mode, (line,) = decided("online", **asks)
        assert mode == "offline" and line.startswith(f"tilespin: W&B does not answer at {server.url}")
    mode, (line,) = decided("online", **asks)
    assert mode == "offline" and "does not answer" in line


STUBBORN = """
import subprocess, sys, wandb
from jobs.tracking import connection
started = [subprocess.Popen([path]) for path in sys.argv[1:]]
wandb.teardown, connection.END_SECONDS = started[0].wait, 0.1
connection.end_wandb_client()
print([one.poll() for one in started])
started[1].kill()
"""


def test_a_client_that_does_not_end_is_ended(tmp_path):
    """A process of the client's name, which waits for nobody, and that of another name beside it."""
    for name in ("wandb-core", "other"):
        (tmp_path / name).write_text("#!/bin/sh\nwhile true; do sleep 0.1; done\n")
        (tmp_path / name).chmod(0o755)
    words = [sys.executable, "-c", STUBBORN, tmp_path / "wandb-core", tmp_path / "other"]
    assert subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=900).stdout == "[-9, None]\n"


@pytest.mark.parametrize("mode", ["auto", "online"])
@pytest.mark.parametrize("key", ["short", "has'quotes and-blanks-" * 3])
def test_a_key_that_is_none_is_named_and_not_shown(mode, key):
    found, (line,) = decided(mode, WANDB_API_KEY=key)
    assert found == "offline" and "WANDB_API_KEY invalid" in line and key not in line


TWO = """
import sys, time
from pathlib import Path
import jobs.tracking.tracker as tracking
tracking.INIT_SECONDS = 2
for name in ("first", "second"):
    began = time.monotonic()
    one = tracking.Tracker("online", Path(sys.argv[1]), id=name, study="s", job_type="evaluate", name=name, config={})
    one.result({"top1": 0.5})
    one.finish()
    print(name, len(list(Path(sys.argv[1]).glob(f"wandb/offline-run-*-{name}"))), tracking._unreachable)
"""


@pytest.mark.network
def test_a_process_waits_only_once_for_a_server_that_went_away(tmp_path):
    """The second run does not ask it any more; both can be uploaded later."""
    with Server() as server:
        server.down = True
        env = environment() | server.environment() | {"WANDB_HTTP_TIMEOUT": "2"}
        done = subprocess.run(
            [sys.executable, "-c", TWO, tmp_path], cwd=ROOT, env=env, capture_output=True, text=True, timeout=900
        )
        assert done.stdout.split() == ["first", "1", "True", "second", "1", "True"]
        assert done.stderr.count("warning") == 1 and "first and the runs after it are tracked offline" in done.stderr
        server.down = False
        sync(server, tmp_path)
        assert {run.summary["top1"] for run in server.runs.values()} == {0.5} and len(server.runs) == 2


def test_not_logged_in_is_offline(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_mode("auto") == "offline"


def test_segments_are_read_up_to_the_first_torn_record(tmp_path):
    """A segment of the real client, of three blocks, cut at any byte: what is whole of it is read, and read on."""
    tracker = Tracker("offline", tmp_path, id="x", study="s", job_type="pretrain", name="x", config={}, step="step")
    for step in range(1, 31):
        tracker.log({"step": step, "text": "x" * 2500}, step)
    tracker.finish()
    (file,) = tmp_path.glob("wandb/offline-run-*/run-x.wandb")
    data = file.read_bytes()
    ends = [end for _, end in offline_runs.records(data)]
    assert ends[-1] == len(data) > 2 * offline_runs.BLOCK and offline_runs.last_step(tmp_path, "x") == 30
    for size in [*range(0, 300), *(end + shift for end in ends for shift in (-1, 0, 1, 7, 8))]:
        whole = offline_runs.complete_prefix(data[:size])
        assert len(whole) == max((end for end in ends if end <= size), default=0)
        assert whole == data[: len(whole)]
    damaged = bytearray(data)
    damaged[ends[9] + 20] ^= 1
    assert len(offline_runs.complete_prefix(bytes(damaged))) == ends[9], "what lies behind damage is not trusted"


def test_sync_command_mends_segments(tmp_path):
    """A run killed before its first record leaves a header only, others a torn end: the client would stop there."""
    tracker = Tracker("offline", tmp_path, id="x", study="s", job_type="pretrain", name="x", config={}, step="step")
    tracker.log({"step": 7}, 7)
    tracker.finish()
    (good,) = tmp_path.glob("wandb/offline-run-*/run-x.wandb")
    data = good.read_bytes()
    for name, content in (("1-a", data[: offline_runs.HEADER]), ("2-b", b""), ("3-c", data[:-5])):
        folder = tmp_path / "wandb" / f"offline-run-{name}"
        folder.mkdir()
        (folder / "run-a.wandb").write_bytes(content)
    assert offline_runs.sync_command(tmp_path) == f"wandb sync {tmp_path}/wandb/offline-run-*"
    assert {p.name for p in tmp_path.glob("wandb/offline-run-*")} == {"offline-run-3-c", good.parent.name}
    mended = (tmp_path / "wandb/offline-run-3-c/run-a.wandb").read_bytes()
    assert mended == offline_runs.complete_prefix(data[:-5]) and 0 < len(mended) < len(data) - 5
    assert good.read_bytes() == data
    assert offline_runs.sync_command(tmp_path / "nothing") is None


def test_late_writes_of_a_dying_client_go_nowhere(tmp_path):
    """A run that is continued freezes what was there: who still writes to it changes nothing that was counted."""
    folder = tmp_path / "wandb" / "offline-run-1-x"
    folder.mkdir(parents=True)
    tracker = Tracker("offline", tmp_path, id="y", study="s", job_type="pretrain", name="y", config={}, step="step")
    tracker.log({"step": 3}, 3)
    tracker.finish()
    (good,) = tmp_path.glob("wandb/offline-run-*/run-y.wandb")
    data = good.read_bytes()
    file = folder / "run-x.wandb"
    file.write_bytes(data[:-5])
    with open(file, "ab") as late:
        tracker = Tracker("offline", tmp_path, id="x", study="s", job_type="pretrain", name="x", config={}, step="step")
        late.write(data[-5:])
    assert tracker.uploaded_step == 3
    tracker.finish()
    assert file.read_bytes() == offline_runs.complete_prefix(data[:-5])
